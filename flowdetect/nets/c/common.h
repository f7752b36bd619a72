/* Instruction sets of functions, and shared types. */

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define AVX __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq")))
#define AMX __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16")))
#define INLINE static inline __attribute__((always_inline))

typedef uint16_t bfloat16;
typedef enum { STORE, ADD, RELU, MASK } Mode; /* use of a product; MASK: 0 where the mask is not above 0 */

static int64_t up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }
