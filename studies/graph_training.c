/* Whole trainings of GAT and JK-Net on a neighbourhood, one thread; graph_training.py calls it and says what it is. */
#pragma GCC optimize("O3")
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int classes, train;                       /* classes; training nodes, which are the first ones */
    const int *starts, *columns;              /* features, CSR; one row a node */
    const float *values;
    const int *into, *sources;                /* edges by target, CSR */
    const float *weights;                     /* of the normalised adjacency matrix */
    const int *labels;
    int hops;
    const int *nodes;                         /* nodes within 0, 1, ... hops */
    int inputs;                               /* features of a node */
    float decay;
    int dropout;                              /* 0: none, for tests */
} Graph;

typedef struct {
    uint64_t word;
} Random;

static inline uint64_t next(Random *r) {
    uint64_t x = r->word;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    r->word = x;
    return x * 0x2545F4914F6CDD1DULL;
}

/* scale[i] = 1/keep with probability keep, else 0; keep to 16 bits */
static void masks(Random *r, float *scale, int count, float keep, int dropout) {
    if (!dropout) {
        for (int i = 0; i < count; i++) scale[i] = 1;
        return;
    }
    uint32_t below = (uint32_t)(keep * 65536.0f + 0.5f);
    float up = 1 / keep;
    for (int i = 0; i < count; i += 64) {
        uint64_t words[16];
        uint32_t parts[64];
        int rest = count - i < 64 ? count - i : 64;
        for (int j = 0; j < (rest + 3) / 4; j++) words[j] = next(r);
        for (int j = 0; j < rest; j++) parts[j] = (words[j / 4] >> (16 * (j % 4))) & 0xFFFF;
#pragma omp simd
        for (int j = 0; j < rest; j++) scale[i + j] = parts[j] < below ? up : 0;
    }
}

/* dlogits = (softmax - onehot)/count; returns the mean cross-entropy */
static double cross_entropy(const Graph *G, const float *logits, float *gradient) {
    double loss = 0;
    int C = G->classes, n = G->train;
    for (int i = 0; i < n; i++) {
        const float *row = logits + i * C;
        float top = row[0], sum = 0;
        for (int c = 1; c < C; c++) top = fmaxf(top, row[c]);
        for (int c = 0; c < C; c++) sum += gradient[i * C + c] = expf(row[c] - top);
        loss += logf(sum) + top - row[G->labels[i]];
        for (int c = 0; c < C; c++) gradient[i * C + c] /= sum * n;
        gradient[i * C + G->labels[i]] -= 1.0f / n;
    }
    return loss / n;
}

/* y[n, O] = features W, W [inputs, O], feature values v; O is a constant where it is called, so that sums stay in registers */
static inline __attribute__((always_inline)) void project(const Graph *G, int n, int O, const float *v, const float *W,
                                                          float *y) {
    for (int i = 0; i < n; i++) {
        float row[64] = {0};
        for (int e = G->starts[i]; e < G->starts[i + 1]; e++) {
            const float *w = W + (size_t)G->columns[e] * O;
            float x = v[e];
            if (x != 0)
#pragma omp simd
                for (int k = 0; k < O; k++) row[k] += x * w[k];
        }
        memcpy(y + (size_t)i * O, row, O * sizeof(float));
    }
}

static void project_back(const Graph *G, int n, int O, const float *v, const float *dy, float *dW) {
    for (int i = 0; i < n; i++) {
        const float *row = dy + (size_t)i * O;
        for (int e = G->starts[i]; e < G->starts[i + 1]; e++) {
            float *w = dW + (size_t)G->columns[e] * O;
            float x = v[e];
            if (x != 0)
#pragma omp simd
                for (int k = 0; k < O; k++) w[k] += x * row[k];
        }
    }
}

/* JK-Net. Parameters: W0 [inputs, 16], W1..W5 [16 in, 16 out], biases [6, 16], head [16, classes], its bias. */
#define H 16
#define LAYERS 6
typedef struct {
    float *h[LAYERS], *z, *p, *dh[LAYERS], *mask, *logits, *dlogits, *best;
    int *which;
} JK;

static double jknet(const Graph *G, const float *theta, float *g, Random *r, JK *B) {
    int C = G->classes, n0 = G->train, F = G->inputs, n_in = G->nodes[LAYERS];
    const float *W0 = theta, *W = theta + (size_t)F * H, *b = W + 5 * H * H, *head = b + LAYERS * H, *hb = head + H * C;
    float *gW0 = g, *gW = g + (size_t)F * H, *gb = gW + 5 * H * H, *gh = gb + LAYERS * H, *ghb = gh + H * C;
    for (int l = 0; l < LAYERS; l++) {
        int n = G->nodes[LAYERS - 1 - l], before = G->nodes[LAYERS - l];
        if (!l)
            project(G, n_in, H, G->values, W0, B->p);
        else
            for (int i = 0; i < before; i++) {
                float row[H] = {0};
                const float *x = B->h[l - 1] + i * H, *w = W + (l - 1) * H * H;
                for (int j = 0; j < H; j++)
#pragma omp simd
                    for (int k = 0; k < H; k++) row[k] += x[j] * w[j * H + k];
                memcpy(B->p + i * H, row, sizeof row);
            }
        masks(r, B->mask, n * H, 0.5f, G->dropout);
        for (int i = 0; i < n; i++) {
            float row[H];
            memcpy(row, b + l * H, sizeof row);
            for (int e = G->into[i]; e < G->into[i + 1]; e++) {
                const float *x = B->p + G->sources[e] * H;
                float a = G->weights[e];
#pragma omp simd
                for (int k = 0; k < H; k++) row[k] += a * x[k];
            }
#pragma omp simd
            for (int k = 0; k < H; k++) B->h[l][i * H + k] = (row[k] > 0 ? row[k] : 0) * B->mask[i * H + k];
        }
    }
    for (int i = 0; i < n0 * H; i++) {
        int which = 0;
        for (int l = 1; l < LAYERS; l++)
            if (B->h[l][i] > B->h[which][i]) which = l;
        B->which[i] = which;
        B->best[i] = B->h[which][i];
    }
    for (int i = 0; i < n0; i++)
        for (int c = 0; c < C; c++) {
            float s = hb[c];
            for (int k = 0; k < H; k++) s += B->best[i * H + k] * head[k * C + c];
            B->logits[i * C + c] = s;
        }
    double loss = cross_entropy(G, B->logits, B->dlogits);
    for (int l = 0; l < LAYERS; l++) memset(B->dh[l], 0, (size_t)G->nodes[LAYERS - 1 - l] * H * sizeof(float));
    for (int i = 0; i < n0; i++)
        for (int c = 0; c < C; c++) {
            float d = B->dlogits[i * C + c];
            ghb[c] += d;
            for (int k = 0; k < H; k++) {
                gh[k * C + c] += d * B->best[i * H + k];
                B->dh[B->which[i * H + k]][i * H + k] += d * head[k * C + c];
            }
        }
    float up = G->dropout ? 2.0f : 1.0f;
    for (int l = LAYERS - 1; l >= 0; l--) {
        int n = G->nodes[LAYERS - 1 - l], before = G->nodes[LAYERS - l];
        float *dp = B->p;
        memset(dp, 0, (size_t)before * H * sizeof(float));
        for (int i = 0; i < n; i++) {
            float dz[H];
#pragma omp simd
            for (int k = 0; k < H; k++) dz[k] = B->h[l][i * H + k] > 0 ? up * B->dh[l][i * H + k] : 0;
#pragma omp simd
            for (int k = 0; k < H; k++) gb[l * H + k] += dz[k];
            for (int e = G->into[i]; e < G->into[i + 1]; e++) {
                float *x = dp + G->sources[e] * H, a = G->weights[e];
#pragma omp simd
                for (int k = 0; k < H; k++) x[k] += a * dz[k];
            }
        }
        if (!l) {
            project_back(G, n_in, H, G->values, dp, gW0);
            break;
        }
        float w[H * H], gw[H * H] = {0};
        for (int j = 0; j < H; j++)
            for (int k = 0; k < H; k++) w[k * H + j] = W[(l - 1) * H * H + j * H + k];
        for (int i = 0; i < before; i++) {
            const float *d = dp + i * H, *x = B->h[l - 1] + i * H;
            float row[H] = {0};
            for (int k = 0; k < H; k++)
#pragma omp simd
                for (int j = 0; j < H; j++) row[j] += d[k] * w[k * H + j];
#pragma omp simd
            for (int j = 0; j < H; j++) B->dh[l - 1][i * H + j] += row[j];
            for (int j = 0; j < H; j++)
#pragma omp simd
                for (int k = 0; k < H; k++) gw[j * H + k] += x[j] * d[k];
        }
        for (int j = 0; j < H * H; j++) gW[(l - 1) * H * H + j] += gw[j];
    }
    return loss;
}

/* An attention layer of `heads` heads of D units: z [.., heads D] to out [n, heads D], n targets. */
typedef struct {
    float *as, *ad, *alpha, *mask, *das, *dad;
} Attention;

static void attend(const Graph *G, int n, int from, int heads, int D, const float *z, const float *src, const float *dst,
                   const float *bias, Random *r, Attention *A, float *out) {
    int O = heads * D;
    for (int i = 0; i < from; i++)
        for (int h = 0; h < heads; h++) {
            float s = 0, d = 0;
            for (int k = 0; k < D; k++) {
                s += z[(size_t)i * O + h * D + k] * src[h * D + k];
                d += z[(size_t)i * O + h * D + k] * dst[h * D + k];
            }
            A->as[i * heads + h] = s;
            A->ad[i * heads + h] = d;
        }
    masks(r, A->mask, G->into[n] * heads, 0.4f, G->dropout);
    for (int i = 0; i < n; i++) {
        int a = G->into[i], b = G->into[i + 1];
        for (int h = 0; h < heads; h++) {
            float top = -INFINITY, sum = 0;
            for (int e = a; e < b; e++) {
                float s = A->as[G->sources[e] * heads + h] + A->ad[i * heads + h];
                s = s > 0 ? s : 0.2f * s;
                A->alpha[e * heads + h] = s;
                top = fmaxf(top, s);
            }
            for (int e = a; e < b; e++) sum += A->alpha[e * heads + h] = expf(A->alpha[e * heads + h] - top);
            for (int e = a; e < b; e++) A->alpha[e * heads + h] /= sum;
        }
        float *row = out + (size_t)i * O;
        memcpy(row, bias, O * sizeof(float));
        for (int e = a; e < b; e++) {
            const float *x = z + (size_t)G->sources[e] * O;
            for (int h = 0; h < heads; h++) {
                float p = A->alpha[e * heads + h] * A->mask[e * heads + h];
                if (p != 0)
                    for (int k = 0; k < D; k++) row[h * D + k] += p * x[h * D + k];
            }
        }
    }
}

static void attend_back(const Graph *G, int n, int from, int heads, int D, const float *z, const float *src,
                        const float *dst, const float *dout, Attention *A, float *dz, float *gsrc, float *gdst,
                        float *gbias) {
    int O = heads * D;
    memset(dz, 0, (size_t)from * O * sizeof(float));
    memset(A->das, 0, (size_t)from * heads * sizeof(float));
    memset(A->dad, 0, (size_t)from * heads * sizeof(float));
    for (int i = 0; i < n; i++) {
        const float *d = dout + (size_t)i * O;
        int a = G->into[i], b = G->into[i + 1];
        for (int k = 0; k < O; k++) gbias[k] += d[k];
        for (int h = 0; h < heads; h++) {
            float mean = 0;
            for (int e = a; e < b; e++) {
                float m = A->mask[e * heads + h], p = A->alpha[e * heads + h], s = 0;
                size_t at = (size_t)G->sources[e] * O + h * D;
                if (m != 0) {
                    for (int k = 0; k < D; k++) s += d[h * D + k] * z[at + k];
                    for (int k = 0; k < D; k++) dz[at + k] += p * m * d[h * D + k];
                    s *= m;
                }
                A->mask[e * heads + h] = s; /* now the derivative by alpha */
                mean += p * s;
            }
            for (int e = a; e < b; e++) {
                int from_ = G->sources[e] * heads + h;
                float s = A->alpha[e * heads + h] * (A->mask[e * heads + h] - mean);
                s *= A->as[from_] + A->ad[i * heads + h] > 0 ? 1 : 0.2f;
                A->das[from_] += s;
                A->dad[i * heads + h] += s;
            }
        }
    }
    for (int i = 0; i < from; i++)
        for (int h = 0; h < heads; h++) {
            float s = A->das[i * heads + h], d = A->dad[i * heads + h];
            size_t at = (size_t)i * O + h * D;
            for (int k = 0; k < D; k++) {
                gsrc[h * D + k] += s * z[at + k];
                gdst[h * D + k] += d * z[at + k];
                dz[at + k] += s * src[h * D + k] + d * dst[h * D + k];
            }
        }
}

/* GAT. Parameters: W [inputs, 64], src, dst, bias [64 each], W2 [64, classes], src2, dst2, bias2 [classes each]. */
#define U 64
typedef struct {
    float *v, *z, *x, *m, *out, *dz, *dx, *z2, *dz2, *logits, *dlogits;
    Attention first, second;
} GATBuffers;

static double gat(const Graph *G, const float *theta, float *g, Random *r, GATBuffers *B) {
    int C = G->classes, n0 = G->nodes[0], n1 = G->nodes[1], n2 = G->nodes[2];
    size_t size = (size_t)G->inputs * U;
    const float *W = theta, *src = W + size, *dst = src + U, *bias = dst + U, *W2 = bias + U;
    const float *src2 = W2 + U * C, *dst2 = src2 + C, *bias2 = dst2 + C;
    float *gW = g, *gsrc = gW + size, *gdst = gsrc + U, *gbias = gdst + U, *gW2 = gbias + U;
    float *gsrc2 = gW2 + U * C, *gdst2 = gsrc2 + C, *gbias2 = gdst2 + C;
    int count = G->starts[n2];
    masks(r, B->v, count, 0.4f, G->dropout);
    for (int e = 0; e < count; e++) B->v[e] *= G->values[e];
    project(G, n2, U, B->v, W, B->z);
    attend(G, n1, n2, 8, 8, B->z, src, dst, bias, r, &B->first, B->out);
    masks(r, B->m, n1 * U, 0.4f, G->dropout);
    for (int i = 0; i < n1 * U; i++) B->x[i] = B->m[i] == 0 ? 0 : B->m[i] * (B->out[i] > 0 ? B->out[i] : expm1f(B->out[i]));
    for (int i = 0; i < n1; i++)
        for (int c = 0; c < C; c++) {
            float s = 0;
            for (int k = 0; k < U; k++) s += B->x[i * U + k] * W2[k * C + c];
            B->z2[i * C + c] = s;
        }
    attend(G, n0, n1, 1, C, B->z2, src2, dst2, bias2, r, &B->second, B->logits);
    double loss = cross_entropy(G, B->logits, B->dlogits);
    attend_back(G, n0, n1, 1, C, B->z2, src2, dst2, B->dlogits, &B->second, B->dz2, gsrc2, gdst2, gbias2);
    for (int i = 0; i < n1; i++)
        for (int k = 0; k < U; k++) {
            float s = 0, x = B->x[i * U + k], m = B->m[i * U + k];
            for (int c = 0; c < C; c++) {
                float d = B->dz2[i * C + c];
                gW2[k * C + c] += x * d;
                s += d * W2[k * C + c];
            }
            float y = B->out[i * U + k];
            B->dx[i * U + k] = m == 0 ? 0 : s * m * (y > 0 ? 1 : expf(y));
        }
    attend_back(G, n1, n2, 8, 8, B->z, src, dst, B->dx, &B->first, B->dz, gsrc, gdst, gbias);
    project_back(G, n2, U, B->v, B->dz, gW);
    return loss;
}

static float *floats(size_t count) { return calloc(count ? count : 1, sizeof(float)); }

static void room(Attention *A, int from, int edges, int heads) {
    float **all[] = {&A->as, &A->ad, &A->das, &A->dad};
    for (int i = 0; i < 4; i++) *all[i] = floats((size_t)from * heads);
    A->alpha = floats((size_t)edges * heads);
    A->mask = floats((size_t)edges * heads);
}

static void leave(Attention *A) {
    free(A->as), free(A->ad), free(A->das), free(A->dad), free(A->alpha), free(A->mask);
}

/* T steps of theta [P] in place: w -= a ad + r rs + s sign(m) + d w + p (w - average), coefficients [T, 5] with the rate.
   Writes the cross-entropy of each step. */
void train(const Graph *G, int attention, float *theta, int P, int T, const float *coefficients, double beta1,
           double beta2, double rho, uint64_t seed, double *losses) {
    Random r = {seed * 0x9E3779B97F4A7C15ULL | 1};
    for (int i = 0; i < 8; i++) next(&r);
    float *g = floats(P), *m = floats(P), *v = floats(P), *average = floats(P);
    int n = G->nodes[G->hops], C = G->classes, edges = G->into[G->nodes[G->hops - 1]];
    JK J = {0};
    GATBuffers B = {0};
    if (attention) {
        int n1 = G->nodes[1];
        float **wide[] = {&B.z, &B.out, &B.x, &B.m, &B.dz, &B.dx};
        for (int i = 0; i < 6; i++) *wide[i] = floats((size_t)n * U);
        float **narrow[] = {&B.z2, &B.dz2, &B.logits, &B.dlogits};
        for (int i = 0; i < 4; i++) *narrow[i] = floats((size_t)n1 * C);
        B.v = floats(G->starts[n]);
        room(&B.first, n, edges, 8);
        room(&B.second, n1, edges, 1);
    } else {
        for (int l = 0; l < LAYERS; l++) J.h[l] = floats((size_t)n * H), J.dh[l] = floats((size_t)n * H);
        J.p = floats((size_t)n * H), J.mask = floats((size_t)n * H), J.best = floats((size_t)G->train * H);
        J.which = calloc((size_t)G->train * H, sizeof(int));
        J.logits = floats((size_t)G->train * C), J.dlogits = floats((size_t)G->train * C);
    }
    double power1 = 1, power2 = 1;
    memcpy(average, theta, P * sizeof(float));
    for (int t = 0; t < T; t++) {
        float decay = G->decay;
#pragma omp simd
        for (int i = 0; i < P; i++) g[i] = decay * theta[i];
        losses[t] = attention ? gat(G, theta, g, &r, &B) : jknet(G, theta, g, &r, &J);
        power1 *= beta1, power2 *= beta2;
        float b1 = beta1, c1 = 1 - beta1, b2 = beta2, c2 = 1 - beta2, k1 = 1 / (1 - power1), k2 = 1 / (1 - power2);
        float q = rho, eps = 1e-8f;
        const float *k = coefficients + 5 * t;
        float a = k[0] * k1, rs = k[1], s = k[2], d = k[3], p = k[4];
#pragma omp simd
        for (int i = 0; i < P; i++) {
            float w = theta[i], x = g[i], mm = b1 * m[i] + c1 * x, vv = b2 * v[i] + c2 * x * x;
            float e = w + q * (average[i] - w), sign = (mm > 0) - (mm < 0);
            m[i] = mm, v[i] = vv, average[i] = e;
            theta[i] = w - ((a * mm + rs * x) / (sqrtf(vv * k2) + eps) + s * sign + d * w + p * (w - e));
        }
    }
    free(g), free(m), free(v), free(average);
    for (int l = 0; l < LAYERS; l++) free(J.h[l]), free(J.dh[l]);
    free(J.p), free(J.mask), free(J.best), free(J.which), free(J.logits), free(J.dlogits);
    free(B.z), free(B.out), free(B.x), free(B.m), free(B.dz), free(B.dx), free(B.z2), free(B.dz2), free(B.logits);
    free(B.dlogits), free(B.v);
    leave(&B.first), leave(&B.second);
}
