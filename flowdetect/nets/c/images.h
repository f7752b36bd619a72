/* What is asked for, the sizes that follow, and images: gathering their values by taps, and scattering them. */

typedef struct {
    int64_t n, c, height, width, hidden, out, k, x_stride, bf16, threads;
    const float *x, *w1, *b1, *w2, *b2, *w3, *b3;
    float *y;                                  /* forward */
    const float *g;                            /* backward: the gradient of y, and those of all else */
    float *dx, *dw1, *db1, *dw2, *db2, *dw3;
    char *workspace;
} Call;

typedef struct {                               /* sizes that follow from a call's */
    const Call *call;
    int64_t margin, padded_height, padded_width;
    int64_t qc, qo, kc, ko, hidden;            /* taps times channels, as they are and padded; hidden, padded */
    int64_t images, rows, pixels;              /* of a tile; its pixels padded */
} Plan;

INLINE __mmask16 lanes(int64_t left) { return left < 16 ? (__mmask16)((1u << left) - 1) : 0xffff; }

/* Gather (add 0): row (tap, channel) of the columns takes the tile's pixels of the padded images, shifted by the tap.
   Scatter (add 1): the padded images get them added there. back: by the opposite of the tap. */
INLINE AVX void move(const Plan *p, float *pad, int64_t channels, int64_t images, int64_t y0, int64_t rows, int back, int add,
                     float *columns) {
    const int64_t w = p->call->width, k = p->call->k, pw = p->padded_width, size = p->padded_height * pw;
    for (int64_t image = 0; image < images; image++)
        for (int64_t tap = 0; tap < k * k; tap++) {
            const int64_t i = back ? k - 1 - tap / k : tap / k, j = back ? k - 1 - tap % k : tap % k;
            for (int64_t channel = 0; channel < channels; channel++) {
                float *row = columns + (tap * channels + channel) * p->pixels + image * rows * w;
                float *at = pad + (image * channels + channel) * size + (y0 + i) * pw + j;
                for (int64_t y = 0; y < rows; y++, row += w, at += pw)
                    for (int64_t x = 0; x < w; x += 16) {
                        const __mmask16 some = lanes(w - x);
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
    for (int64_t q = 0; q < k * k * channels && used < p->pixels; q++) /* pixels beyond the tile count nothing */
        memset(columns + q * p->pixels + used, 0, sizeof(float) * (p->pixels - used));
}

static AVX void scatter(const Plan *p, float *columns, int64_t channels, int64_t images, int64_t y0, int64_t rows, int back,
                        float *pad) {
    move(p, pad, channels, images, y0, rows, back, 1, columns);
}

/* Images (channels, height, width) into their padded places; the margins are 0 and stay so. */
static void into_pad(const Plan *p, const float *from, int64_t stride, int64_t channels, int64_t images, float *pad) {
    const int64_t h = p->call->height, w = p->call->width;
    for (int64_t image = 0; image < images; image++)
        for (int64_t channel = 0; channel < channels; channel++)
            for (int64_t y = 0; y < h; y++)
                memcpy(pad + ((image * channels + channel) * p->padded_height + y + p->margin) * p->padded_width + p->margin,
                       from + image * stride + (channel * h + y) * w, sizeof(float) * w);
}

static void out_of_pad(const Plan *p, const float *pad, int64_t channels, int64_t images, const float *bias, float *to) {
    const int64_t h = p->call->height, w = p->call->width;
    for (int64_t image = 0; image < images; image++)
        for (int64_t channel = 0; channel < channels; channel++)
            for (int64_t y = 0; y < h; y++) {
                const float *row =
                    pad + ((image * channels + channel) * p->padded_height + y + p->margin) * p->padded_width + p->margin;
                for (int64_t x = 0; x < w; x++) *to++ = row[x] + (bias ? bias[channel] : 0.0f);
            }
}
