/* The arguments of a call, derived sizes, and gathering and scattering of image values by taps. */

typedef struct {
    int64_t n, c, height, width, hidden, out, k, x_stride, bf16, threads;
    const float *x, *w1, *b1, *w2, *b2, *w3, *b3;
    float *y;                                  /* forward */
    const float *g;                            /* backward: the gradient of y, and the other gradients */
    float *dx, *dw1, *db1, *dw2, *db2, *dw3;
    char *workspace;
    /* GOMP_parallel of torch's OpenMP, or null; threads of our own would share cores with its waiting threads */
    void (*parallel)(void (*)(void *), void *, unsigned, unsigned);
} Call;

typedef struct {                               /* sizes derived from a call */
    const Call *call;
    int64_t margin, padded_height, padded_width;
    int64_t qc, qo, kc, ko, hidden;            /* taps times channels, unpadded and padded; hidden, padded */
    int64_t images, rows, pixels;              /* of a tile; pixels are padded */
} Plan;

/* Padded images of a tile are (channels, padded_height, padded_width, images), so that one move covers all images. A
   tile's pixels have the order (row, column, image).

   Gather (add 0): copy the tile's pixels of the padded images, shifted by the tap, to the columns' row (tap, channel).
   Scatter (add 1): add the columns to the padded images at these positions. back: shift by the opposite of the tap. */
INLINE AVX void move(const Plan *p, float *pad, int64_t channels, int64_t images, int64_t y0, int64_t rows, int back, int add,
                     float *columns) {
    const int64_t k = p->call->k, n = p->call->width * images, step = p->padded_width * images;
    for (int64_t tap = 0; tap < k * k; tap++) {
        const int64_t i = back ? k - 1 - tap / k : tap / k, j = back ? k - 1 - tap % k : tap % k;
        for (int64_t channel = 0; channel < channels; channel++) {
            float *row = columns + (tap * channels + channel) * p->pixels;
            float *at = pad + (channel * p->padded_height + y0 + i) * step + j * images;
            for (int64_t y = 0; y < rows; y++, row += n, at += step)
                for (int64_t x = 0; x < n; x += 16) {
                    const __mmask16 some = lanes(n - x);
                    const __m512 value = _mm512_maskz_loadu_ps(some, add ? row + x : at + x);
                    if (add) _mm512_mask_storeu_ps(at + x, some, _mm512_add_ps(value, _mm512_maskz_loadu_ps(some, at + x)));
                    else _mm512_mask_storeu_ps(row + x, some, value);
                }
        }
    }
}

static AVX void gather(const Plan *p, float *pad, int64_t channels, int64_t images, int64_t y0, int64_t rows, int back,
                       float *columns) {
    move(p, pad, channels, images, y0, rows, back, 0, columns);
    const int64_t used = images * rows * p->call->width, k = p->call->k;
    for (int64_t q = 0; q < k * k * channels && used < p->pixels; q++) /* pixels beyond the tile are 0 */
        memset(columns + q * p->pixels + used, 0, sizeof(float) * (p->pixels - used));
}

static AVX void scatter(const Plan *p, float *columns, int64_t channels, int64_t images, int64_t y0, int64_t rows, int back,
                        float *pad) {
    move(p, pad, channels, images, y0, rows, back, 1, columns);
}

/* Copy images (channels, height, width) into padded images with margins of 0. */
static void into_pad(const Plan *p, const float *from, int64_t stride, int64_t channels, int64_t images, float *pad) {
    const int64_t h = p->call->height, w = p->call->width;
    memset(pad, 0, sizeof(float) * channels * p->padded_height * p->padded_width * images);
    for (int64_t channel = 0; channel < channels; channel++)
        for (int64_t y = 0; y < h; y++) {
            float *to = pad + ((channel * p->padded_height + y + p->margin) * p->padded_width + p->margin) * images;
            for (int64_t image = 0; image < images; image++)
                for (int64_t x = 0; x < w; x++) to[x * images + image] = from[image * stride + (channel * h + y) * w + x];
        }
}

static void out_of_pad(const Plan *p, const float *pad, int64_t channels, int64_t images, const float *bias, float *to) {
    const int64_t h = p->call->height, w = p->call->width;
    for (int64_t channel = 0; channel < channels; channel++)
        for (int64_t y = 0; y < h; y++) {
            const float *from = pad + ((channel * p->padded_height + y + p->margin) * p->padded_width + p->margin) * images;
            for (int64_t image = 0; image < images; image++)
                for (int64_t x = 0; x < w; x++)
                    to[((image * channels + channel) * h + y) * w + x] = from[x * images + image] + (bias ? bias[channel] : 0.0f);
        }
}
