/* Matrix products in bfloat16 by AMX, which accumulates in float32. */

typedef struct {
    uint8_t palette, start, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
} __attribute__((aligned(64))) TileShapes;

/* Forces pending writes to memory: compilers do not know which memory the tile instructions read. */
#define SETTLED __asm__ volatile("" ::: "memory")

static AMX void open_tiles(TileShapes *before) {
    TileShapes shapes = {.palette = 1};
    for (int i = 0; i < 8; i++) shapes.bytes[i] = 64, shapes.rows[i] = 16;
    SETTLED;
    _tile_storeconfig(before);
    _tile_loadconfig(&shapes);
    SETTLED;
}

static AMX void close_tiles(const TileShapes *before) { /* other code in this thread may rely on its own shapes */
    SETTLED;
    if (before->palette) _tile_loadconfig(before);
    else _tile_release();
}

/* Two rows (32 values) of a product, rounded to bfloat16. */
INLINE AMX void finish(const float *sums, int rows, Mode mode, const float *const *bias, int64_t column,
                       const bfloat16 *mask, bfloat16 *to, int64_t ld) {
    const __m512 zero = _mm512_setzero_ps();
    for (int m = 0; m < rows; m++) {
        __m512 low = _mm512_load_ps(sums + 32 * m), high = _mm512_load_ps(sums + 32 * m + 16);
        if (mode == RELU) {
            low = _mm512_max_ps(zero, _mm512_add_ps(low, _mm512_loadu_ps(bias[m] + column)));
            high = _mm512_max_ps(zero, _mm512_add_ps(high, _mm512_loadu_ps(bias[m] + column + 16)));
        }
        __m512i rounded = (__m512i)_mm512_cvtne2ps_pbh(high, low);
        if (mode == MASK) {
            __mmask32 above = _mm512_cmpgt_epi16_mask(_mm512_loadu_si512(mask + m * ld), _mm512_setzero_si512());
            rounded = _mm512_maskz_mov_epi16(above, rounded);
        }
        _mm512_storeu_si512(to + m * ld, rounded);
    }
}

/* C (M, N) = A (M, K) B (K, N): A in rows of lda, B in pairs of rows, (K / 2, N, 2). M and N are multiples of 16, K
   of 32. STORE and ADD write float32 to C, RELU and MASK bfloat16 to `to` (N a multiple of 32). */
static AMX void tile_product(int64_t M, int64_t N, int64_t K, const bfloat16 *A, int64_t lda, const bfloat16 *B, Mode mode,
                             float *C, bfloat16 *to, int64_t ld, const float *const *bias, const bfloat16 *mask) {
    float sums[32 * 32] __attribute__((aligned(64)));
    for (int64_t m = 0; m < M; m += 32)
        for (int64_t n = 0; n < N; n += 32) {
            const int two_m = m + 16 < M, two_n = n + 16 < N;
            SETTLED;
            float *c = mode == ADD || mode == STORE ? C + m * ld + n : sums;
            const int64_t ldc = mode == ADD || mode == STORE ? 4 * ld : 4 * 32;
            if (mode == ADD) {
                _tile_loadd(0, c, ldc);
                if (two_n) _tile_loadd(1, c + 16, ldc);
                if (two_m) _tile_loadd(2, (char *)c + 16 * ldc, ldc);
                if (two_m && two_n) _tile_loadd(3, (char *)(c + 16) + 16 * ldc, ldc);
            } else {
                _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
            }
            const bfloat16 *a = A + m * lda, *b = B + 2 * n;
            if (two_m && two_n)
                for (int64_t k = 0; k < K; k += 32) {
                    _tile_loadd(4, a + k, 2 * lda);
                    _tile_loadd(6, b + k * N, 4 * N);
                    _tile_dpbf16ps(0, 4, 6);
                    _tile_loadd(5, a + k + 16 * lda, 2 * lda);
                    _tile_dpbf16ps(2, 5, 6);
                    _tile_loadd(7, b + k * N + 32, 4 * N);
                    _tile_dpbf16ps(1, 4, 7);
                    _tile_dpbf16ps(3, 5, 7);
                }
            else
                for (int64_t k = 0; k < K; k += 32) {
                    _tile_loadd(4, a + k, 2 * lda);
                    _tile_loadd(6, b + k * N, 4 * N);
                    _tile_dpbf16ps(0, 4, 6);
                    if (two_n) {
                        _tile_loadd(7, b + k * N + 32, 4 * N);
                        _tile_dpbf16ps(1, 4, 7);
                    }
                    if (two_m) {
                        _tile_loadd(5, a + k + 16 * lda, 2 * lda);
                        _tile_dpbf16ps(2, 5, 6);
                    }
                }
            _tile_stored(0, c, ldc);
            if (two_n) _tile_stored(1, c + 16, ldc);
            if (two_m) _tile_stored(2, (char *)c + 16 * ldc, ldc);
            if (two_m && two_n) _tile_stored(3, (char *)(c + 16) + 16 * ldc, ldc);
            if (mode == RELU || mode == MASK)
                finish(sums, two_m ? 32 : 16, mode, bias ? bias + m : 0, n, mask ? mask + m * ld + n : 0, to + m * ld + n, ld);
        }
}

/* Pack weights W (N, K) as b(k, n) = W[n, k] into pairs of rows, (K / 2, N, 2), padded with 0. */
static AMX void pack_pairs_turned(const float *W, int64_t n_real, int64_t k_real, int64_t K, int64_t N, bfloat16 *to) {
    for (int64_t n = 0; n < N; n += 16)
        for (int64_t k = 0; k < K; k += 32) {
            __m512 r[16];
#pragma GCC unroll 16
            for (int m = 0; m < 16; m++) {
                const float *from = W + (n + m) * k_real + k;
                const int is_there = n + m < n_real;
                const __m512 low = _mm512_maskz_loadu_ps(is_there ? lanes(k_real - k) : 0, from);
                const __m512 high = _mm512_maskz_loadu_ps(is_there ? lanes(k_real - k - 16) : 0, from + 16);
                r[m] = (__m512)_mm512_cvtne2ps_pbh(high, low);
            }
            transpose_in_registers(r);
#pragma GCC unroll 16
            for (int m = 0; m < 16; m++) _mm512_storeu_ps(to + ((k / 2 + m) * N + n) * 2, r[m]);
        }
}

/* Pack weights W (K, N) as b(k, n) = W[k, n]. */
static AMX void pack_pairs_straight(const float *W, int64_t k_real, int64_t n_real, int64_t K, int64_t N, bfloat16 *to) {
    uint16_t order[32];
    for (int i = 0; i < 32; i++) order[i] = (uint16_t)(i / 2 + i % 2 * 16); /* alternates the values of two rows */
    const __m512i turns = _mm512_loadu_si512(order);
    for (int64_t k = 0; k < K; k += 2)
        for (int64_t n = 0; n < N; n += 16) {
            const __mmask16 some = lanes(n_real - n);
            const __m512 low = _mm512_maskz_loadu_ps(k < k_real ? some : 0, W + k * n_real + n);
            const __m512 high = _mm512_maskz_loadu_ps(k + 1 < k_real ? some : 0, W + (k + 1) * n_real + n);
            _mm512_storeu_si512(to + (k * N + 2 * n), _mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh(high, low)));
        }
}

/* (K, N) -> (K / 2, N, 2), N a multiple of 32. */
static AVX void pair_rows(const bfloat16 *from, int64_t K, int64_t N, bfloat16 *to) {
    uint16_t order[64];
    for (int i = 0; i < 64; i++) order[i] = (uint16_t)(i / 2 + i % 2 * 32); /* alternates the values of a and b */
    const __m512i first = _mm512_loadu_si512(order), second = _mm512_loadu_si512(order + 32);
    for (int64_t k = 0; k < K; k += 2)
        for (int64_t n = 0; n < N; n += 32) {
            const __m512i a = _mm512_loadu_si512(from + k * N + n), b = _mm512_loadu_si512(from + (k + 1) * N + n);
            _mm512_storeu_si512(to + k * N + 2 * n, _mm512_permutex2var_epi16(a, first, b));
            _mm512_storeu_si512(to + k * N + 2 * n + 32, _mm512_permutex2var_epi16(a, second, b));
        }
}

static AMX void round_rows(const float *from, int64_t n, bfloat16 *to) { /* n a multiple of 16 */
    for (int64_t i = 0; i < n; i += 16)
        _mm256_storeu_si256((__m256i *)(to + i), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i)));
}
