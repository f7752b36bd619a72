/* Three convolutions with ReLU between, kernel sizes k, 1, k: forward and backward, tile by tile of pixels.

   y = b3 + w3 * h2, h2 = max(0, b2 + w2 h1), h1 = max(0, b1 + w1 * x)

   A tile's hidden values stay in the cache. The backward pass recomputes them from x, so nothing is stored for it. A
   convolution with k > 1 is a matrix product with columns of its few outer channels: the input channels shifted by each
   tap (gathered), or the output channels added at each tap's position (scattered).

   In float32, products use AVX-512; the order of each pixel's sums does not depend on other pixels. In bfloat16,
   products use AMX, which accumulates in float32; hidden values are rounded to bfloat16.

   Shapes; all arrays are contiguous except x, whose images are x_stride values apart:
   x (n, c, height, width), y and g (n, out, height, width), w1 (hidden, k, k, c), w2 (hidden, hidden),
   w3 (out, k, k, hidden), b1 (n, hidden), one per image, b2 (hidden), b3 (out). */

#define _GNU_SOURCE
#include <cpuid.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common.h"
#include "moving.h"
#include "float32.h"
#include "bfloat16.h"
#include "images.h"

#define MOST_THREADS 64
#define VERSION 2 /* of `Call` and of the exported functions */

typedef struct {                               /* packed weights, in the type of the products */
    void *w1, *w2, *w3, *w3_back, *w2_back, *w1_back;
} Packed;

typedef struct {                               /* workspace of one thread */
    float *x_pad, *y_pad, *g_pad, *dx_pad, *x_columns, *g_columns, *product, *product_t;
    const float **bias1, **bias2;              /* per pixel of the tile */
    float *h1, *h2, *d1, *d2;                  /* (pixels, hidden) of the tile; in bf16: bfloat16 */
    bfloat16 *x_rows, *g_rows, *x_plain, *g_plain, *pairs, *turned;
    float *dw1, *dw2, *dw3, *db2;              /* gradients, in the layout of the products */
} Room;

/* Sum rows of float32 values or, if these are null, of bfloat16 values: (rows, n) -> (n), n a multiple of 16. */
INLINE AVX void add_rows(const float *from, const bfloat16 *from_bf16, int64_t rows, int64_t ld, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i += 16) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t m = 0; m < rows; m++) {
            if (from) sum = _mm512_add_ps(sum, _mm512_loadu_ps(from + m * ld + i));
            else {
                const __m256i bits = _mm256_loadu_si256((const __m256i *)(from_bf16 + m * ld + i));
                sum = _mm512_add_ps(sum, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16)));
            }
        }
        _mm512_storeu_ps(to + i, _mm512_add_ps(sum, _mm512_loadu_ps(to + i)));
    }
}

/* ---- sizes and places */

static Plan plan_of(const Call *call) {
    Plan p = {.call = call, .margin = call->k / 2};
    const int64_t taps = call->k * call->k, area = call->height * call->width;
    p.padded_height = call->height + call->k - 1, p.padded_width = call->width + call->k - 1;
    p.qc = taps * call->c, p.qo = taps * call->out, p.kc = up(p.qc, 32), p.ko = up(p.qo, 32);
    p.hidden = up(call->hidden, 32);
    int64_t most = (call->bf16 ? 131072 : 65536) / p.hidden; /* pixels whose hidden values fit the cache */
    most = most < 64 ? 64 : most > 512 ? 512 : most;
    p.images = area <= most ? most / area : 1;
    p.rows = area <= most ? call->height : most / call->width > 0 ? most / call->width : 1;
    p.pixels = up(p.images * p.rows * call->width, 32);
    return p;
}

static void *take(char **at, int64_t bytes) {
    void *found = *at;
    *at += up(bytes, 64);
    return found;
}

static float *floats(char **at, int64_t n) { return take(at, 4 * n); }

static bfloat16 *halves(char **at, int64_t n) { return take(at, 2 * n); }

static Packed place_weights(const Plan *p, int backward, char **at) {
    const int64_t h = p->hidden;
    Packed packed = {floats(at, p->kc * h), floats(at, h * h), floats(at, h * p->ko), 0, 0, 0};
    if (backward)
        packed.w3_back = floats(at, p->ko * h), packed.w2_back = floats(at, h * h), packed.w1_back = floats(at, h * p->kc);
    return packed;
}

static Room place(const Plan *p, int backward, char **at) {
    const Call *call = p->call;
    const int64_t h = p->hidden, pixels = p->pixels, area = p->padded_height * p->padded_width * p->images;
    const int64_t widest = p->kc > p->ko ? p->kc : p->ko, half = call->bf16;
    Room room = {.x_pad = floats(at, area * call->c), .x_columns = floats(at, p->kc * pixels)};
    room.product = floats(at, pixels * widest), room.product_t = floats(at, widest * pixels);
    room.bias1 = take(at, sizeof(float *) * pixels), room.bias2 = take(at, sizeof(float *) * pixels);
    room.h1 = floats(at, pixels * h), room.h2 = floats(at, pixels * h);
    room.x_rows = halves(at, half * pixels * p->kc);
    if (!backward) {
        room.y_pad = floats(at, area * call->out);
        return room;
    }
    room.g_pad = floats(at, area * call->out), room.dx_pad = floats(at, area * call->c);
    room.g_columns = floats(at, p->ko * pixels);
    room.d1 = floats(at, pixels * h), room.d2 = floats(at, pixels * h);
    room.g_rows = halves(at, half * pixels * p->ko);
    room.x_plain = halves(at, half * p->kc * pixels), room.g_plain = halves(at, half * p->ko * pixels);
    room.pairs = halves(at, half * pixels * h), room.turned = halves(at, half * pixels * h);
    room.dw1 = floats(at, p->kc * h), room.dw2 = floats(at, h * h), room.dw3 = floats(at, p->ko * h);
    room.db2 = floats(at, h);
    return room;
}

typedef struct {
    Plan plan;
    int backward;
    Packed packed;
    float *w3; /* by tap and channel */
    const float *b1, *b2; /* padded */
    float *db1;
    Room rooms[MOST_THREADS];
} Work;

static int64_t thread_count(const Call *call) {
    const int64_t most = call->threads < MOST_THREADS ? call->threads : MOST_THREADS;
    return most < call->n ? (most > 0 ? most : 1) : call->n;
}

static int64_t arrange(const Call *call, int backward, char *start, Work *work) {
    char *at = start;
    work->plan = plan_of(call), work->backward = backward;
    work->packed = place_weights(&work->plan, backward, &at);
    work->w3 = floats(&at, work->plan.qo * call->hidden);
    work->b1 = floats(&at, call->n * work->plan.hidden), work->b2 = floats(&at, work->plan.hidden);
    work->db1 = floats(&at, backward * call->n * work->plan.hidden);
    for (int64_t i = 0; i < thread_count(call); i++) work->rooms[i] = place(&work->plan, backward, &at);
    return at - start;
}

static AMX void pack_weights(const Work *work) {
    const Plan *p = &work->plan;
    const Call *call = p->call;
    const Packed *to = &work->packed;
    const int64_t taps = call->k * call->k, hidden = call->hidden, h = p->hidden;
    float *w3 = work->w3;
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t o = 0; o < call->out; o++)
            memcpy(w3 + (tap * call->out + o) * hidden, call->w3 + (o * taps + tap) * hidden, sizeof(float) * hidden);
    const int64_t qc = up(p->qc, 16), qo = up(p->qo, 16);
    if (call->bf16) {
        pack_pairs_turned(call->w1, hidden, p->qc, p->kc, h, to->w1);
        pack_pairs_turned(call->w2, hidden, hidden, h, h, to->w2);
        pack_pairs_turned(w3, p->qo, hidden, h, qo, to->w3);
        if (!work->backward) return;
        pack_pairs_straight(w3, p->qo, hidden, p->ko, h, to->w3_back);
        pack_pairs_straight(call->w2, hidden, hidden, h, h, to->w2_back);
        pack_pairs_straight(call->w1, hidden, p->qc, h, qc, to->w1_back);
        return;
    }
    pack_turned(call->w1, hidden, p->qc, h, to->w1);
    pack_turned(call->w2, hidden, hidden, h, to->w2);
    pack_turned(w3, p->qo, hidden, qo, to->w3);
    if (!work->backward) return;
    pack_straight(w3, p->qo, hidden, h, to->w3_back);
    pack_straight(call->w2, hidden, hidden, h, to->w2_back);
    pack_straight(call->w1, hidden, p->qc, qc, to->w1_back);
}

/* ---- a tile */

typedef struct {
    int64_t images, y0, rows, used, padded; /* images and rows of the tile, and their pixels */
} Tile;

/* The last layer of either direction: hidden values times weights (hidden, q), added at the taps' positions. */
static AMX void last(const Plan *p, const Room *r, const Tile *t, const float *hidden, const void *weights, int64_t q,
                     int64_t channels, int back, float *pad) {
    const int64_t width = up(q, 16);
    if (p->call->bf16)
        tile_product(t->padded, width, p->hidden, (const bfloat16 *)hidden, p->hidden, weights, STORE, r->product, 0, width, 0, 0);
    else product(t->used, width, p->call->hidden, hidden, p->hidden, 1, weights, 0, r->product, width, STORE, 0, 0);
    transpose(r->product, up(t->used, 16), width, width, r->product_t, p->pixels);
    scatter(p, r->product_t, channels, t->images, t->y0, t->rows, back, pad);
}

static AMX void hidden_values(const Work *work, const Room *r, const Tile *t) {
    const Plan *p = &work->plan;
    const int64_t h = p->hidden;
    gather(p, r->x_pad, p->call->c, t->images, t->y0, t->rows, 0, r->x_columns);
    if (p->call->bf16) {
        bfloat16 *h1 = (bfloat16 *)r->h1, *h2 = (bfloat16 *)r->h2;
        transpose_rounded(r->x_columns, p->kc, t->padded, p->pixels, r->x_rows, p->kc);
        tile_product(t->padded, h, p->kc, r->x_rows, p->kc, work->packed.w1, RELU, 0, h1, h, r->bias1, 0);
        tile_product(t->padded, h, h, h1, h, work->packed.w2, RELU, 0, h2, h, r->bias2, 0);
        return;
    }
    product(t->used, h, p->qc, r->x_columns, 1, p->pixels, work->packed.w1, 0, r->h1, h, RELU, r->bias1, 0);
    product(t->used, h, p->call->hidden, r->h1, h, 1, work->packed.w2, 0, r->h2, h, RELU, r->bias2, 0);
}

static AVX void gradients(const Work *work, const Room *r, const Tile *t) {
    const Plan *p = &work->plan;
    const Packed *w = &work->packed;
    const int64_t h = p->hidden, pixels = p->pixels, used = t->used;
    product(used, h, p->qo, r->g_columns, 1, pixels, w->w3_back, 0, r->d2, h, MASK, 0, r->h2);
    product(p->qo, h, used, r->g_columns, pixels, 1, r->h2, h, r->dw3, h, ADD, 0, 0);
    product(h, h, used, r->d2, 1, h, r->h1, h, r->dw2, h, ADD, 0, 0);
    product(used, h, p->call->hidden, r->d2, h, 1, w->w2_back, 0, r->d1, h, MASK, 0, r->h1);
    product(p->qc, h, used, r->x_columns, pixels, 1, r->d1, h, r->dw1, h, ADD, 0, 0);
}

static AMX void gradients_bf16(const Work *work, const Room *r, const Tile *t) {
    const Plan *p = &work->plan;
    const Packed *w = &work->packed;
    const int64_t h = p->hidden, pixels = p->pixels, used = t->padded;
    bfloat16 *h1 = (bfloat16 *)r->h1, *h2 = (bfloat16 *)r->h2, *d1 = (bfloat16 *)r->d1, *d2 = (bfloat16 *)r->d2;
    transpose_rounded(r->g_columns, p->ko, used, pixels, r->g_rows, p->ko);
    round_rows(r->g_columns, up(p->qo, 16) * pixels, r->g_plain);
    round_rows(r->x_columns, up(p->qc, 16) * pixels, r->x_plain);
    tile_product(used, h, p->ko, r->g_rows, p->ko, w->w3_back, MASK, 0, d2, h, 0, h2);
    pair_rows(h2, used, h, r->pairs);
    tile_product(up(p->qo, 16), h, used, r->g_plain, pixels, r->pairs, ADD, r->dw3, 0, h, 0, 0);
    pair_rows(d2, used, h, r->pairs);
    transpose((float *)r->pairs, used / 2, h, h, (float *)r->turned, pixels / 2); /* pairs of pixels -> (hidden, pixels) */
    pair_rows(h1, used, h, r->pairs);
    tile_product(h, h, used, r->turned, pixels, r->pairs, ADD, r->dw2, 0, h, 0, 0);
    tile_product(used, h, h, d2, h, w->w2_back, MASK, 0, d1, h, 0, h1);
    pair_rows(d1, used, h, r->pairs);
    tile_product(up(p->qc, 16), h, used, r->x_plain, pixels, r->pairs, ADD, r->dw1, 0, h, 0, 0);
}

static AVX void add_biases(const Work *work, const Room *r, const Tile *t, int64_t image) {
    const int64_t h = work->plan.hidden, area = t->rows * work->plan.call->width, half = work->plan.call->bf16;
    add_rows(half ? 0 : r->d2, (bfloat16 *)r->d2, t->used, h, h, r->db2);
    for (int64_t i = 0; i < t->images; i++)
        add_rows(half ? 0 : r->d1 + i * h, (bfloat16 *)r->d1 + i * h, area, t->images * h, h, work->db1 + (image + i) * h);
}

/* ---- a thread's images */

static AMX void run_images(const Work *work, const Room *r, int64_t first, int64_t end) {
    const Plan *p = &work->plan;
    const Call *call = p->call;
    const int64_t area = call->height * call->width, padded = p->padded_height * p->padded_width;
    for (int64_t image = first; image < end; image += p->images) {
        Tile t = {.images = end - image < p->images ? end - image : p->images};
        into_pad(p, call->x + image * call->x_stride, call->x_stride, call->c, t.images, r->x_pad);
        if (work->backward) {
            into_pad(p, call->g + image * call->out * area, call->out * area, call->out, t.images, r->g_pad);
            memset(r->dx_pad, 0, sizeof(float) * t.images * call->c * padded);
        } else memset(r->y_pad, 0, sizeof(float) * t.images * call->out * padded);
        for (t.y0 = 0; t.y0 < call->height; t.y0 += p->rows) {
            t.rows = call->height - t.y0 < p->rows ? call->height - t.y0 : p->rows;
            t.used = t.images * t.rows * call->width, t.padded = up(t.used, 32);
            for (int64_t i = 0; i < t.padded; i++) {
                r->bias1[i] = work->b1 + (image + i % t.images) * p->hidden;
                r->bias2[i] = work->b2;
            }
            hidden_values(work, r, &t);
            if (!work->backward) {
                last(p, r, &t, r->h2, work->packed.w3, p->qo, call->out, 1, r->y_pad);
                continue;
            }
            gather(p, r->g_pad, call->out, t.images, t.y0, t.rows, 1, r->g_columns);
            if (call->bf16) gradients_bf16(work, r, &t);
            else gradients(work, r, &t);
            add_biases(work, r, &t, image);
            last(p, r, &t, r->d1, work->packed.w1_back, p->qc, call->c, 0, r->dx_pad);
        }
        if (work->backward) out_of_pad(p, r->dx_pad, call->c, t.images, 0, call->dx + image * call->c * area);
        else out_of_pad(p, r->y_pad, call->out, t.images, call->b3, call->y + image * call->out * area);
    }
}

static AMX void clear(const Work *work, const Room *r) { /* padding and sums start at 0 */
    const Plan *p = &work->plan;
    memset(r->x_columns, 0, sizeof(float) * p->kc * p->pixels);
    if (!work->backward) return;
    memset(r->g_columns, 0, sizeof(float) * p->ko * p->pixels);
    memset(r->dw1, 0, sizeof(float) * p->kc * p->hidden);
    memset(r->dw2, 0, sizeof(float) * p->hidden * p->hidden);
    memset(r->dw3, 0, sizeof(float) * p->ko * p->hidden);
    memset(r->db2, 0, sizeof(float) * p->hidden);
}

typedef struct {
    const Work *work;
    int64_t index, first, end;
} Share;

static void *run_share(void *given) {
    const Share *share = given;
    const Work *work = share->work;
    const Room *room = &work->rooms[share->index];
    TileShapes before;
    clear(work, room);
    if (work->plan.call->bf16) open_tiles(&before);
    run_images(work, room, share->first, share->end);
    if (work->plan.call->bf16) close_tiles(&before);
    return 0;
}

typedef struct {
    Share *shares;
    int64_t n, next;
} Team;

static void *take_shares(void *given) { /* each thread takes the next free share */
    Team *team = given;
    for (int64_t i; (i = __atomic_fetch_add(&team->next, 1, __ATOMIC_RELAXED)) < team->n;) run_share(&team->shares[i]);
    return 0;
}

static void member(void *given) { take_shares(given); }

static void run_shares(const Work *work) {
    const Call *call = work->plan.call;
    const int64_t n = thread_count(call);
    Share shares[MOST_THREADS];
    pthread_t threads[MOST_THREADS];
    int started[MOST_THREADS] = {0};
    for (int64_t i = 0; i < n; i++) shares[i] = (Share){work, i, call->n * i / n, call->n * (i + 1) / n};
    Team team = {shares, n, 0};
    if (call->parallel && n > 1) {
        call->parallel(member, &team, (unsigned)n, 0);
        return;
    }
    for (int64_t i = 1; i < n; i++) started[i] = pthread_create(&threads[i], 0, take_shares, &team) == 0;
    take_shares(&team);
    for (int64_t i = 1; i < n; i++)
        if (started[i]) pthread_join(threads[i], 0);
}

static void add_up(const Work *work) { /* sums the threads' gradients, in fixed order */
    const Plan *p = &work->plan;
    const Call *call = p->call;
    const int64_t h = p->hidden, taps = call->k * call->k, hidden = call->hidden;
    memset(call->dw1, 0, sizeof(float) * hidden * p->qc);
    memset(call->dw2, 0, sizeof(float) * hidden * hidden);
    memset(call->dw3, 0, sizeof(float) * p->qo * hidden);
    memset(call->db2, 0, sizeof(float) * hidden);
    for (int64_t i = 0; i < thread_count(call); i++) {
        const Room *r = &work->rooms[i];
        for (int64_t q = 0; q < p->qc; q++)
            for (int64_t j = 0; j < hidden; j++) call->dw1[j * p->qc + q] += r->dw1[q * h + j];
        for (int64_t j = 0; j < hidden; j++) {
            for (int64_t l = 0; l < hidden; l++) call->dw2[j * hidden + l] += r->dw2[j * h + l];
            call->db2[j] += r->db2[j];
        }
        for (int64_t q = 0; q < p->qo; q++)
            for (int64_t j = 0; j < hidden; j++)
                call->dw3[(q % call->out * taps + q / call->out) * hidden + j] += r->dw3[q * h + j];
    }
    for (int64_t image = 0; image < call->n; image++)
        memcpy(call->db1 + image * hidden, work->db1 + image * h, sizeof(float) * hidden);
}

/* ---- exported functions */

int64_t convnet_workspace(const Call *call, int backward) { /* bytes */
    Work work;
    return arrange(call, backward, 0, &work) + 64;
}

void convnet_run(const Call *call, int backward) {
    Work work;
    arrange(call, backward, (char *)up((int64_t)call->workspace, 64), &work);
    const int64_t h = work.plan.hidden, hidden = call->hidden;
    pack_weights(&work);
    memset((float *)work.b1, 0, sizeof(float) * call->n * h);
    memset((float *)work.b2, 0, sizeof(float) * h);
    for (int64_t i = 0; i < call->n; i++)
        memcpy((float *)work.b1 + i * h, call->b1 + i * hidden, sizeof(float) * hidden);
    memcpy((float *)work.b2, call->b2, sizeof(float) * hidden);
    if (backward) memset(work.db1, 0, sizeof(float) * call->n * h);
    run_shares(&work);
    if (backward) add_up(&work);
}

int convnet_version(void) { return VERSION; }

/* 0: this processor is not supported; 1: float32 is; 2: bfloat16 too. */
int convnet_level(void) {
    unsigned a, b, c, d;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512dq"))
        return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & 1u << 22) || !(d & 1u << 24)) return 1; /* amx-bf16, amx-tile */
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & 1u << 5)) return 1;                      /* avx512_bf16 */
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0 ? 2 : 1; /* ARCH_REQ_XCOMP_PERM for tile data */
}
