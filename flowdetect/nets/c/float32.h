/* Matrix products in float32 by AVX-512. */

/* C (mr, 16 nv) = A B: a(m, k) at A[m sm + k sk], b(k, n) at B[k ldb + n]. */
INLINE AVX void block(const int mr, const int nv, int64_t K, const float *A, int64_t sm, int64_t sk, const float *B,
                      int64_t ldb, float *C, int64_t ldc, Mode mode, const float *const *bias, int64_t column,
                      const float *mask) {
    __m512 sum[6][4];
#pragma GCC unroll 6
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) sum[m][v] = mode == ADD ? _mm512_loadu_ps(C + m * ldc + 16 * v) : _mm512_setzero_ps();
    for (int64_t k = 0; k < K; k++) {
        __m512 b[4];
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) b[v] = _mm512_loadu_ps(B + k * ldb + 16 * v);
#pragma GCC unroll 6
        for (int m = 0; m < mr; m++) {
            __m512 a = _mm512_set1_ps(A[m * sm + k * sk]);
#pragma GCC unroll 4
            for (int v = 0; v < nv; v++) sum[m][v] = _mm512_fmadd_ps(a, b[v], sum[m][v]);
        }
    }
    const __m512 zero = _mm512_setzero_ps();
#pragma GCC unroll 6
    for (int m = 0; m < mr; m++)
#pragma GCC unroll 4
        for (int v = 0; v < nv; v++) {
            __m512 value = sum[m][v];
            if (mode == RELU) /* this order keeps NaN */
                value = _mm512_max_ps(zero, _mm512_add_ps(value, _mm512_loadu_ps(bias[m] + column + 16 * v)));
            if (mode == MASK) {
                __mmask16 above = _mm512_cmp_ps_mask(_mm512_loadu_ps(mask + m * ldc + 16 * v), zero, _CMP_GT_OQ);
                value = _mm512_maskz_mov_ps(above, value);
            }
            _mm512_storeu_ps(C + m * ldc + 16 * v, value);
        }
}

#define ROWS(nv) \
    switch (mr) { \
    case 6: block(6, nv, K, a, sm, sk, b, width, c, ldc, mode, rows, n, masked); break; \
    case 5: block(5, nv, K, a, sm, sk, b, width, c, ldc, mode, rows, n, masked); break; \
    case 4: block(4, nv, K, a, sm, sk, b, width, c, ldc, mode, rows, n, masked); break; \
    case 3: block(3, nv, K, a, sm, sk, b, width, c, ldc, mode, rows, n, masked); break; \
    case 2: block(2, nv, K, a, sm, sk, b, width, c, ldc, mode, rows, n, masked); break; \
    default: block(1, nv, K, a, sm, sk, b, width, c, ldc, mode, rows, n, masked); \
    }

/* C (M, N) = A (M, K) B (K, N), N a multiple of 16; ldb 0: B is in panels of 64 columns, as packed by the functions below. */
static AVX void product(int64_t M, int64_t N, int64_t K, const float *A, int64_t sm, int64_t sk, const float *B,
                        int64_t ldb, float *C, int64_t ldc, Mode mode, const float *const *bias, const float *mask) {
    for (int64_t n = 0; n < N; n += 64) {
        const int64_t columns = N - n < 64 ? N - n : 64, width = ldb ? ldb : columns;
        const float *b = ldb ? B + n : B + n * K;
        for (int64_t m = 0; m < M; m += 6) {
            const int mr = M - m < 6 ? (int)(M - m) : 6;
            const float *a = A + m * sm, *masked = mask ? mask + m * ldc + n : 0;
            const float *const *rows = bias ? bias + m : 0;
            float *c = C + m * ldc + n;
            switch (columns / 16) {
            case 4: ROWS(4) break;
            case 3: ROWS(3) break;
            case 2: ROWS(2) break;
            default: ROWS(1)
            }
        }
    }
}

/* Pack weights W (N, K) as b(k, n) = W[n, k] into panels; columns beyond n_real are 0. */
static AVX void pack_turned(const float *W, int64_t n_real, int64_t K, int64_t N, float *to) {
    for (int64_t n = 0; n < N; n += 16) {
        const int64_t first = n / 64 * 64, width = N - first < 64 ? N - first : 64;
        for (int64_t k = 0; k < K; k += 16) {
            __m512 r[16];
#pragma GCC unroll 16
            for (int m = 0; m < 16; m++) r[m] = _mm512_maskz_loadu_ps(n + m < n_real ? lanes(K - k) : 0, W + (n + m) * K + k);
            transpose_in_registers(r);
            float *at = to + first * K + k * width + n % 64;
#pragma GCC unroll 16
            for (int m = 0; m < 16; m++)
                if (k + m < K) _mm512_storeu_ps(at + m * width, r[m]);
        }
    }
}

/* Pack weights W (K, N) as b(k, n) = W[k, n]. */
static AVX void pack_straight(const float *W, int64_t K, int64_t n_real, int64_t N, float *to) {
    for (int64_t n = 0; n < N; n += 16) {
        const int64_t first = n / 64 * 64, width = N - first < 64 ? N - first : 64;
        for (int64_t k = 0; k < K; k++)
            _mm512_storeu_ps(to + first * K + k * width + n % 64, _mm512_maskz_loadu_ps(lanes(n_real - n), W + k * n_real + n));
    }
}
