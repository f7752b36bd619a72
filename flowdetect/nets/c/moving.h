/* Transposing matrices. */

INLINE __mmask16 lanes(int64_t left) { return left >= 16 ? 0xffff : left > 0 ? (__mmask16)((1u << left) - 1) : 0; }

INLINE AVX void transpose_in_registers(__m512 r[16]) {
    __m512 t[16];
#pragma GCC unroll 8
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i]), _mm512_castps_pd(t[i + 2])));
        r[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
        r[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(t[i + 1]), _mm512_castps_pd(t[i + 3])));
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_f32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_f32x4(r[i + 8], r[i + 12], 0xdd);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[i] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
        r[i + 12] = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
    }
}

INLINE AVX void load_turned(const float *from, int64_t ld, __m512 r[16]) {
#pragma GCC unroll 16
    for (int m = 0; m < 16; m++) r[m] = _mm512_loadu_ps(from + m * ld);
    transpose_in_registers(r);
}

/* (rows, columns) of 32-bit values -> (columns, rows), both multiples of 16. */
static AVX void transpose(const float *from, int64_t rows, int64_t columns, int64_t ld, float *to, int64_t ld_to) {
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16) {
            __m512 r[16];
            load_turned(from + i * ld + j, ld, r);
#pragma GCC unroll 16
            for (int m = 0; m < 16; m++) _mm512_storeu_ps(to + (j + m) * ld_to + i, r[m]);
        }
}

/* (rows, columns) float32 -> (columns, rows) bfloat16. */
static AMX void transpose_rounded(const float *from, int64_t rows, int64_t columns, int64_t ld, bfloat16 *to, int64_t ld_to) {
    for (int64_t i = 0; i < rows; i += 16)
        for (int64_t j = 0; j < columns; j += 16) {
            __m512 r[16];
            load_turned(from + i * ld + j, ld, r);
#pragma GCC unroll 16
            for (int m = 0; m < 16; m++)
                _mm256_storeu_si256((__m256i *)(to + (j + m) * ld_to + i), (__m256i)_mm512_cvtneps_pbh(r[m]));
        }
}
