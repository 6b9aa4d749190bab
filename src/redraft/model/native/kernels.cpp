// What lies between a step's matrix products, row by row, each in one pass over memory; and, where there is AVX-512, the
// products of small models and attention.
//
// Every function is the twin of a few lines of plain PyTorch in layers.py, attention.py, methods.py or streamed.py, rounds
// where those round, and gives a row the same bits whatever rows are beside it. Shapes are the caller's business: nothing
// is checked here. What may be large the caller allocates, since an exception could go nowhere.
//
// n rows, d row size; T is float or bfloat16.

#include <omp.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

namespace {

struct BFloat16 {
    uint16_t bits;
};

inline float load(float x) { return x; }

inline float load(BFloat16 x) {
    uint32_t bits = static_cast<uint32_t>(x.bits) << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline void store(float value, float& out) { out = value; }

inline void store(float value, BFloat16& out) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    // To the nearest, ties to even; the addition would carry a NaN over into a number.
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    out.bits = static_cast<uint16_t>(value != value ? 0x7fc0 : rounded);
}

template <class T>
inline float rounded(float value) {
    T stored;
    store(value, stored);
    return load(stored);
}

struct Power {
    float scale, rest;  // e^x = scale · (1 + rest), scale a power of two
};

// Without branches, so that loops over it become vector code (range reduction after Cody and Waite, Taylor's series).
inline Power power(float x) {
    float bounded = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float whole = std::nearbyint(bounded * 1.44269504f);
    float rest = (bounded - whole * 0.693145752f) - whole * 1.42860677e-6f;
    float series = 1.0f / 5040;
    series = series * rest + 1.0f / 720;
    series = series * rest + 1.0f / 120;
    series = series * rest + 1.0f / 24;
    series = series * rest + 1.0f / 6;
    series = series * rest + 0.5f;
    series = series * rest + 1.0f;
    int32_t bits = (static_cast<int32_t>(whole) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return {scale, series * rest};
}

inline float exponential(float x) {
    Power found = power(x);
    float value = x < -87.0f ? 0.0f : found.scale + found.scale * found.rest;
    return x != x ? x : value;
}

inline float tangent(float x) {
    Power found = power(2.0f * x);
    // e^2x - 1, which keeps its digits where x is small.
    float less = found.scale * found.rest + (found.scale - 1.0f);
    float value = less / (less + 2.0f);
    return x != x ? x : value;
}

inline float gelu(float x) {
    float inner = 1.59576912f * (x + 0.044715f * x * x * x);
    return x / (1.0f + exponential(-inner));
}

template <class T>
inline float inverse_rms(const T* x, int64_t d, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < d; ++i) sum += load(x[i]) * load(x[i]);
    return 1.0f / std::sqrt(sum / static_cast<float>(d) + eps);
}

constexpr int64_t SMALL = 1 << 13;  // Elements below which waking another thread costs more than it helps.

template <class T>
void norm(const T* x, const T* weight, T* out, int64_t n, int64_t d, float eps) {
#pragma omp parallel for if (n * d > SMALL)
    for (int64_t row = 0; row < n; ++row) {
        const T* from = x + row * d;
        T* to = out + row * d;
        float scale = inverse_rms(from, d, eps);
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) store(load(from[i]) * scale * load(weight[i]), to[i]);
    }
}

// Adds norm(change) to x; of the sum, what the dense branch, the router and the experts read.
template <class T>
void branch(const T* x, const T* change, const T* post, const T* dense, const T* router, const T* experts, float root,
            T* residual, T* to_dense, T* to_router, T* to_experts, int64_t n, int64_t d, float eps) {
#pragma omp parallel for if (n * d > SMALL)
    for (int64_t row = 0; row < n; ++row) {
        int64_t at = row * d;
        float scale = inverse_rms(change + at, d, eps);
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) {
            float normed = rounded<T>(load(change[at + i]) * scale * load(post[i]));
            store(load(x[at + i]) + normed, residual[at + i]);
        }
        scale = inverse_rms(residual + at, d, eps);
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) {
            float normed = load(residual[at + i]) * scale;
            store(normed * load(dense[i]), to_dense[at + i]);
            store(normed * load(experts[i]), to_experts[at + i]);
            store(rounded<T>(rounded<T>(normed) * load(router[i])) * root, to_router[at + i]);
        }
    }
}

// Sums each token's experts by weight, joins them with the dense branch and the residual.
template <class T>
void merge(const T* residual, const T* dense, const T* chosen, const int64_t* place, const float* weights, int64_t k,
           const T* dense_norm, const T* experts_norm, const T* post, const T* scalar, int64_t scalars, T* out,
           int64_t n, int64_t d, float eps) {
#pragma omp parallel if (n * d > SMALL)
    {
        std::vector<float> sum(d);
        std::vector<T> sparse(d), joined(d);
#pragma omp for
        for (int64_t row = 0; row < n; ++row) {
            int64_t at = row * d;
            for (int64_t choice = 0; choice < k; ++choice) {
                const T* from = chosen + place[row * k + choice] * d;
                float weight = weights[row * k + choice];
                if (choice == 0) {
#pragma omp simd
                    for (int64_t i = 0; i < d; ++i) sum[i] = load(from[i]) * weight;
                } else {
#pragma omp simd
                    for (int64_t i = 0; i < d; ++i) sum[i] += load(from[i]) * weight;
                }
            }
#pragma omp simd
            for (int64_t i = 0; i < d; ++i) store(sum[i], sparse[i]);
            float of_dense = inverse_rms(dense + at, d, eps), of_sparse = inverse_rms(sparse.data(), d, eps);
#pragma omp simd
            for (int64_t i = 0; i < d; ++i) {
                float one = rounded<T>(load(dense[at + i]) * of_dense * load(dense_norm[i]));
                float other = rounded<T>(load(sparse[i]) * of_sparse * load(experts_norm[i]));
                store(one + other, joined[i]);
            }
            float scale = inverse_rms(joined.data(), d, eps);
            float factor = load(scalar[scalars == 1 ? 0 : row]);
#pragma omp simd
            for (int64_t i = 0; i < d; ++i) {
                float normed = rounded<T>(load(joined[i]) * scale * load(post[i]));
                store(rounded<T>(load(residual[at + i]) + normed) * factor, out[at + i]);
            }
        }
    }
}

template <class T>
void turn_head(const T* from, const T* weight, const float* cos, const float* sin, T* to, int64_t d, float eps) {
    float scale = inverse_rms(from, d, eps);
    int64_t half = d / 2;
#pragma omp simd
    for (int64_t i = 0; i < half; ++i) {
        float first = rounded<T>(load(from[i]) * scale * load(weight[i]));
        float second = rounded<T>(load(from[i + half]) * scale * load(weight[i + half]));
        float c = rounded<T>(cos[i]), s = rounded<T>(sin[i]);
        store(rounded<T>(first * c) - rounded<T>(second * s), to[i]);
        store(rounded<T>(second * c) + rounded<T>(first * s), to[i + half]);
    }
}

// Norms and rotation of queries and keys, the norm of values; where there are no values they are the keys, unrotated.
template <class T>
void heads(const T* qkv, const T* q_norm, const T* k_norm, const float* cos, const float* sin, T* q, T* k, T* v,
           int64_t n, int64_t query_heads, int64_t groups, int64_t d, int64_t has_values, float eps) {
    int64_t width = (query_heads + (has_values ? 2 : 1) * groups) * d;
#pragma omp parallel for if (n * width > SMALL)
    for (int64_t row = 0; row < n; ++row) {
        const T* from = qkv + row * width;
        const float* c = cos + row * (d / 2);
        const float* s = sin + row * (d / 2);
        for (int64_t h = 0; h < query_heads; ++h)
            turn_head(from + h * d, q_norm, c, s, q + (row * query_heads + h) * d, d, eps);
        const T* keys = from + query_heads * d;
        const T* values = has_values ? keys + groups * d : keys;
        for (int64_t g = 0; g < groups; ++g) {
            turn_head(keys + g * d, k_norm, c, s, k + (row * groups + g) * d, d, eps);
            const T* value = values + g * d;
            T* to = v + (row * groups + g) * d;
            float scale = inverse_rms(value, d, eps);
#pragma omp simd
            for (int64_t i = 0; i < d; ++i) store(load(value[i]) * scale, to[i]);
        }
    }
}

template <class T>
void gate(const T* gate_up, T* out, int64_t n, int64_t m) {
#pragma omp parallel for if (n * m > SMALL)
    for (int64_t row = 0; row < n; ++row) {
        const T* gates = gate_up + row * 2 * m;
        T* to = out + row * m;
#pragma omp simd
        for (int64_t i = 0; i < m; ++i) store(rounded<T>(gelu(load(gates[i]))) * load(gates[m + i]), to[i]);
    }
}

// Of each token's e scores the k best, their weights; then the tokens' rows sorted by expert, and where each went.
template <class T>
void route(const T* scores, const T* scales, const T* x, float* weights, int64_t* place, int64_t* counts, T* rows,
           int64_t n, int64_t e, int64_t k, int64_t d) {
    std::vector<int64_t> chosen(n * k);
    std::vector<float> left(e);
    for (int64_t row = 0; row < n; ++row) {
        float highest = -INFINITY, sum = 0, kept = 0;
        for (int64_t i = 0; i < e; ++i) {
            left[i] = load(scores[row * e + i]);
            highest = left[i] > highest ? left[i] : highest;
        }
        for (int64_t i = 0; i < e; ++i) sum += left[i] = std::exp(left[i] - highest);
        for (int64_t choice = 0; choice < k; ++choice) {
            // Also where scores are not numbers each choice is another expert.
            int64_t best = -1;
            for (int64_t i = 0; i < e; ++i)
                if (left[i] != -1 && (best < 0 || left[i] > left[best])) best = i;
            kept += weights[row * k + choice] = left[best] / sum;
            chosen[row * k + choice] = best;
            left[best] = -1;
        }
        for (int64_t choice = 0; choice < k; ++choice)
            weights[row * k + choice] = weights[row * k + choice] / kept * load(scales[chosen[row * k + choice]]);
    }
    std::memset(counts, 0, e * sizeof *counts);
    for (int64_t expert : chosen) ++counts[expert];
    std::vector<int64_t> next(e, 0);
    for (int64_t i = 1; i < e; ++i) next[i] = next[i - 1] + counts[i - 1];
    for (int64_t i = 0; i < n * k; ++i) place[i] = next[chosen[i]]++;
#pragma omp parallel for if (n * k * d > SMALL)
    for (int64_t i = 0; i < n * k; ++i) std::memcpy(rows + place[i] * d, x + i / k * d, d * sizeof(T));
}

// Rows in 8 bits with a scale each; a row with a value that is not finite has no scale, and NaN for products.
template <class T>
void quantize(const T* x, int8_t* out, float* scales, int64_t n, int64_t d) {
#pragma omp parallel for if (n * d > SMALL)
    for (int64_t row = 0; row < n; ++row) {
        const T* from = x + row * d;
        int8_t* to = out + row * d;
        float largest = 0, poison = 0;
#pragma omp simd reduction(max : largest) reduction(+ : poison)
        for (int64_t i = 0; i < d; ++i) {
            float value = load(from[i]);
            largest = std::fabs(value) > largest ? std::fabs(value) : largest;
            poison += value - value;
        }
        float scale = largest / 127.0f;
        scales[row] = poison == 0 ? scale : NAN;
        bool usable = poison == 0 && scale > 0;
#pragma omp simd
        for (int64_t i = 0; i < d; ++i) {
            float value = usable ? std::nearbyint(load(from[i]) / scale) : 0.0f;
            to[i] = static_cast<int8_t>(static_cast<int32_t>(value));
        }
    }
}

template <class T>
void scale_sums(const int32_t* sums, const float* rows, const float* columns, T* out, int64_t n, int64_t o) {
#pragma omp parallel for if (n * o > SMALL)
    for (int64_t row = 0; row < n; ++row) {
#pragma omp simd
        for (int64_t i = 0; i < o; ++i)
            store(static_cast<float>(sums[row * o + i]) * rows[row] * columns[i], out[row * o + i]);
    }
}

// Outputs computed together, and rows: as many sums as there are registers for, beside the weights.
constexpr int64_t PANEL = 32;
constexpr int ROWS = 8;

#ifdef __AVX512F__

typedef float Lanes __attribute__((vector_size(64)));

// 16 outputs take in what 4 bytes hold of a row: one float, or two bfloat16 side by side.
inline void multiply_add(Lanes& sum, const float* x, const float* weights) {
    Lanes w;
    std::memcpy(&w, weights, sizeof w);
    sum += w * *x;
}

#ifdef __AVX512BF16__
inline void multiply_add(Lanes& sum, const BFloat16* x, const BFloat16* weights) {
    int32_t pair;
    std::memcpy(&pair, x, sizeof pair);
    __m512i w = _mm512_loadu_si512(weights);
    sum = (Lanes)_mm512_dpbf16_ps((__m512)sum, (__m512bh)w, (__m512bh)_mm512_set1_epi32(pair));
}
#endif

// The products of R rows with one panel, each sum in the order of its inputs, whatever R is.
template <int R, class T>
inline void multiply_rows(const T* x, int64_t stride, const T* panel, T* out, int64_t inputs, int64_t outputs,
                          int64_t count) {
    constexpr int64_t STEP = 4 / sizeof(T);
    Lanes sums[R][2] = {};
    for (int64_t i = 0; i < inputs; i += STEP)
#pragma GCC unroll 8
        for (int row = 0; row < R; ++row) {
            multiply_add(sums[row][0], x + row * stride + i, panel + i * PANEL);
            multiply_add(sums[row][1], x + row * stride + i, panel + i * PANEL + 16 * STEP);
        }
    for (int row = 0; row < R; ++row) {
        float values[PANEL];
        std::memcpy(values, sums[row], sizeof values);
        for (int64_t i = 0; i < count; ++i) store(values[i], out[row * outputs + i]);
    }
}

// Rows sorted by matrix, counts[matrix] of each, times its matrix: packed [matrices, panels, inputs / STEP, PANEL, STEP].
template <class T>
void multiply(const T* x, const T* packed, const int64_t* counts, T* out, int64_t matrices, int64_t inputs,
              int64_t outputs) {
    int64_t panels = (outputs + PANEL - 1) / PANEL, n = 0;
    std::vector<int64_t> starts(matrices);
    for (int64_t i = 0; i < matrices; ++i) {
        starts[i] = n;
        n += counts[i];
    }
#pragma omp parallel for schedule(dynamic) if (n * inputs * outputs > 16 * SMALL)
    for (int64_t task = 0; task < matrices * panels; ++task) {
        int64_t matrix = task / panels, first = task % panels * PANEL;
        int64_t count = outputs - first < PANEL ? outputs - first : PANEL;
        const T* panel = packed + task * PANEL * inputs;
        int64_t row = starts[matrix], end = row + counts[matrix];
        for (; row + ROWS <= end; row += ROWS)
            multiply_rows<ROWS>(x + row * inputs, inputs, panel, out + row * outputs + first, inputs, outputs, count);
        for (; row + 4 <= end; row += 4)
            multiply_rows<4>(x + row * inputs, inputs, panel, out + row * outputs + first, inputs, outputs, count);
        for (; row < end; ++row)
            multiply_rows<1>(x + row * inputs, inputs, panel, out + row * outputs + first, inputs, outputs, count);
    }
}

// A segment of queries and its keys: `cached` ones, [cached, G, d], then those of its own rows. Causal if `visible` is
// not negative: a query sees itself and that many keys before it.
struct Run {
    int64_t start, length, position, cached, visible;
    const void *keys, *values;
};

// What a segment's keys are filled up to, before and behind: so that a key's place among its neighbours, which rounding
// depends on, follows from its position alone and not from what is cached.
struct Extent {
    int64_t front, padded;

    explicit Extent(const Run& run) {
        front = (run.position - run.cached) % PANEL;
        padded = (front + run.cached + run.length + PANEL - 1) / PANEL * PANEL;
    }
};

// e^(score - highest) / sum of scores [low, high); zero for the rest of [first, last), whole panels.
template <class T>
void softmax_row(T* scores, int64_t first, int64_t last, int64_t low, int64_t high, float* buffer) {
    float highest = -INFINITY;
#pragma omp simd reduction(max : highest)
    for (int64_t i = low; i < high; ++i) highest = load(scores[i]) > highest ? load(scores[i]) : highest;
#pragma omp simd
    for (int64_t i = first; i < last; ++i) {
        float value = exponential(load(scores[i]) - highest);
        buffer[i - first] = i >= low && i < high ? value : 0.0f;
    }
    Lanes sums = {};
    for (int64_t i = 0; i < last - first; i += 16) {
        Lanes part;
        std::memcpy(&part, buffer + i, sizeof part);
        sums += part;
    }
    float sum = 0;
    for (int i = 0; i < 16; ++i) sum += sums[i];
#pragma omp simd
    for (int64_t i = first; i < last; ++i) store(buffer[i - first] / sum, scores[i]);
}

// all_keys and all_values take the packed keys and values of all segments; `most` is the largest extent, and
// each thread has ROWS · (most + 2 d) of scratch and `most` of buffers.
template <class T>
void attend(const T* q, const T* k, const T* v, const Run* runs, int64_t count, T* out, int64_t heads, int64_t groups,
            int64_t d, int64_t most, T* all_keys, T* all_values, T* scratch, float* buffers) {
    constexpr int64_t STEP = 4 / sizeof(T);
    int64_t d_panels = (d + PANEL - 1) / PANEL;
    // Where each segment's packed keys and values begin, and its tasks: panels of keys, blocks of queries.
    std::vector<int64_t> key_at(count + 1, 0), value_at(count + 1, 0), panel_tasks(count + 1, 0), tasks(count + 1, 0);
    for (int64_t i = 0; i < count; ++i) {
        int64_t padded = Extent(runs[i]).padded;
        key_at[i + 1] = key_at[i] + groups * padded * d;
        value_at[i + 1] = value_at[i] + groups * padded * d_panels * PANEL;
        panel_tasks[i + 1] = panel_tasks[i] + groups * (padded / PANEL);
        tasks[i + 1] = tasks[i] + heads * ((runs[i].length + ROWS - 1) / ROWS);
    }
#pragma omp parallel if (tasks[count] > 1)
    {
        T* scores = scratch + omp_get_thread_num() * ROWS * (most + 2 * d);
        T *queries = scores + ROWS * most, *mixed = queries + ROWS * d;
        float* buffer = buffers + omp_get_thread_num() * most;
#pragma omp for schedule(static)
        for (int64_t task = 0; task < panel_tasks[count]; ++task) {
            int64_t i = 0;
            while (task >= panel_tasks[i + 1]) ++i;
            const Run& run = runs[i];
            Extent extent(run);
            int64_t panels = extent.padded / PANEL, group = (task - panel_tasks[i]) / panels;
            int64_t panel = (task - panel_tasks[i]) % panels;
            T* keys = all_keys + key_at[i] + (group * panels + panel) * d * PANEL;
            T* values = all_values + value_at[i] + group * extent.padded * d_panels * PANEL;
            for (int64_t lane = 0; lane < PANEL; ++lane) {
                int64_t place = panel * PANEL + lane, t = place - extent.front;
                const T *key = nullptr, *value = nullptr;
                if (t >= 0 && t < run.cached) {
                    key = static_cast<const T*>(run.keys) + (t * groups + group) * d;
                    value = static_cast<const T*>(run.values) + (t * groups + group) * d;
                } else if (t >= 0 && t < run.cached + run.length) {
                    key = k + ((run.start + t - run.cached) * groups + group) * d;
                    value = v + ((run.start + t - run.cached) * groups + group) * d;
                }
                T zero{};
                for (int64_t j = 0; j < d; ++j)
                    keys[(j / STEP * PANEL + lane) * STEP + j % STEP] = key ? key[j] : zero;
                for (int64_t j = 0; j < d_panels * PANEL; ++j)
                    values[j / PANEL * extent.padded * PANEL + (place / STEP * PANEL + j % PANEL) * STEP +
                           place % STEP] = value && j < d ? value[j] : zero;
            }
        }
#pragma omp for schedule(dynamic)
        for (int64_t task = 0; task < tasks[count]; ++task) {
            int64_t i = 0;
            while (task >= tasks[i + 1]) ++i;
            const Run& run = runs[i];
            Extent extent(run);
            int64_t blocks = (run.length + ROWS - 1) / ROWS, head = (task - tasks[i]) / blocks;
            int64_t first_row = (task - tasks[i]) % blocks * ROWS, group = head / (heads / groups);
            int64_t rows = run.length - first_row < ROWS ? run.length - first_row : ROWS;
            const T* keys = all_keys + key_at[i] + group * extent.padded * d;
            const T* values = all_values + value_at[i] + group * extent.padded * d_panels * PANEL;
            int64_t end = extent.front + run.cached + run.length, low[ROWS], high[ROWS], first = end, last = 0;
            for (int64_t row = 0; row < ROWS; ++row) {
                // Rows that only fill the block up do what the last one does.
                int64_t used = row < rows ? row : rows - 1;
                std::memcpy(queries + row * d, q + ((run.start + first_row + used) * heads + head) * d,
                            d * sizeof(T));
                high[row] = run.visible < 0 ? end : extent.front + run.cached + first_row + used + 1;
                low[row] = run.visible < 0 ? extent.front : high[row] - 1 - run.visible;
                low[row] = low[row] < extent.front ? extent.front : low[row];
                first = low[row] / PANEL * PANEL < first ? low[row] / PANEL * PANEL : first;
                int64_t whole = (high[row] + PANEL - 1) / PANEL * PANEL;
                last = whole > last ? whole : last;
            }
            for (int64_t at = first; at < last; at += PANEL)
                multiply_rows<ROWS>(queries, d, keys + at * d, scores + at, d, most, PANEL);
            for (int64_t row = 0; row < ROWS; ++row)
                softmax_row(scores + row * most, first, last, low[row], high[row], buffer);
            for (int64_t panel = 0; panel < d_panels; ++panel) {
                int64_t width = d - panel * PANEL < PANEL ? d - panel * PANEL : PANEL;
                multiply_rows<ROWS>(scores + first, most, values + (panel * extent.padded + first) * PANEL,
                                    mixed + panel * PANEL, last - first, d, width);
            }
            for (int64_t row = 0; row < rows; ++row)
                std::memcpy(out + ((run.start + first_row + row) * heads + head) * d, mixed + row * d,
                            d * sizeof(T));
        }
    }
}
#endif

constexpr int64_t SHARE = 32;      // As in streamed.py.
constexpr float NOTHING = -1e20f;  // A logit of no mass.

// One tile of t tokens, from `first` on, taken into the readout's running sums (see _Running in streamed.py).
template <class T>
void read_tile(const T* logits, float softcap, const float* sharpness, float* highest, int64_t* argmax, double* mass,
               double* moment, T* probabilities, float* shares, int64_t share_stride, float* shrunk, int64_t n,
               int64_t t, int64_t first) {
    int64_t count = (t + SHARE - 1) / SHARE;
#pragma omp parallel if (n * t > SMALL)
    {
        std::vector<float> z(count * SHARE), p(count * SHARE);
#pragma omp for
        for (int64_t row = 0; row < n; ++row) {
            const T* from = logits + row * t;
            float peak = -INFINITY, poison = 0;
#pragma omp simd reduction(max : peak) reduction(+ : poison)
            for (int64_t i = 0; i < t; ++i) {
                float value = tangent(load(from[i]) / softcap);
                z[i] = value;
                peak = value > peak ? value : peak;
                poison += value - value;
            }
            for (int64_t i = t; i < count * SHARE; ++i) z[i] = NOTHING;
            // A maximum passes over what is not a number; the sums must not.
            if (poison != 0) peak = NAN;
            float before = highest[row];
            if (peak > before) {
                int64_t best = 0;
                while (z[best] != peak) ++best;
                argmax[row] = first + best;
            }
            float top = peak > before || peak != peak ? peak : before;
            float shift = (before - top) * sharpness[row], kept = exponential(shift);
            if (before == -INFINITY) kept = 0;
            highest[row] = top;
            shrunk[row] = kept;
            double total = 0;
            float spread = 0;
#pragma omp simd reduction(+ : spread)
            for (int64_t i = 0; i < count * SHARE; ++i) {
                float log_p = (z[i] - top) * sharpness[row];
                p[i] = exponential(log_p);
                spread += p[i] * log_p;
            }
            float* masses = shares + row * share_stride;
            for (int64_t share = 0; share < count; ++share) {
                float sum = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t i = 0; i < SHARE; ++i) sum += p[share * SHARE + i];
                masses[share] = sum;
                total += sum;
            }
            // Of p · log p = p · (log p - shift) + p · shift; where nothing has been summed yet, shift is infinite.
            double carried = kept > 0 ? mass[row] * shift : 0;
            moment[row] = (moment[row] + carried) * kept + spread;
            mass[row] = mass[row] * kept + total;
            T* to = probabilities + row * count * SHARE;
#pragma omp simd
            for (int64_t i = 0; i < count * SHARE; ++i) store(p[i], to[i]);
        }
    }
}

// Takes a tile into the running sums of classes of tokens, each relative to the class's own highest z. Group g of the tile
// are the tokens order[begin[g]] to order[begin[g + 1] - 1], in order, of class group_class[g]; highest, best, mass and
// moment are [n, classes].
template <class T>
void read_classes(const T* logits, float softcap, const float* sharpness, const int32_t* order, const int32_t* begin,
                  const int32_t* group_class, int64_t groups, float* highest, int64_t* best, double* mass,
                  double* moment, int64_t n, int64_t t, int64_t first, int64_t classes) {
#pragma omp parallel if (n * t > SMALL)
    {
        std::vector<float> natural(t), z(t), tops(t);
#pragma omp for
        for (int64_t row = 0; row < n; ++row) {
            const T* from = logits + row * t;
            float sharp = sharpness[row];
#pragma omp simd
            for (int64_t i = 0; i < t; ++i) natural[i] = tangent(load(from[i]) / softcap);
#pragma omp simd
            for (int64_t i = 0; i < t; ++i) z[i] = natural[order[i]];
            for (int64_t group = 0; group < groups; ++group) {
                int64_t at = row * classes + group_class[group], end = begin[group + 1];
                float peak = -INFINITY, before = highest[at];
#pragma omp simd reduction(max : peak)
                for (int64_t i = begin[group]; i < end; ++i) peak = z[i] > peak ? z[i] : peak;
                if (peak > before) {
                    int64_t found = begin[group];
                    while (z[found] != peak) ++found;
                    best[at] = first + order[found];
                    highest[at] = peak;
                    // Where nothing has been summed yet, shift is infinite.
                    float shift = before == -INFINITY ? 0 : (before - peak) * sharp;
                    double kept = exponential(shift);
                    moment[at] = (moment[at] + mass[at] * shift) * kept;
                    mass[at] *= kept;
                }
                for (int64_t i = begin[group]; i < end; ++i) tops[i] = highest[at];
            }
#pragma omp simd
            for (int64_t i = 0; i < t; ++i) {
                float log_p = (z[i] - tops[i]) * sharp;
                z[i] = exponential(log_p);
                tops[i] = log_p * z[i];
            }
            for (int64_t group = 0; group < groups; ++group) {
                double sum = 0, spread = 0;
#pragma omp simd reduction(+ : sum, spread)
                for (int64_t i = begin[group]; i < begin[group + 1]; ++i) {
                    sum += z[i];
                    spread += tops[i];
                }
                mass[row * classes + group_class[group]] += sum;
                moment[row * classes + group_class[group]] += spread;
            }
        }
    }
}

// soft = soft · shrunk + part
template <class T>
void accumulate(float* soft, const float* shrunk, const T* part, int64_t n, int64_t d) {
#pragma omp parallel for if (n * d > SMALL)
    for (int64_t row = 0; row < n; ++row) {
#pragma omp simd
        for (int64_t i = 0; i < d; ++i)
            soft[row * d + i] = soft[row * d + i] * shrunk[row] + load(part[row * d + i]);
    }
}

}  // namespace

// Of each function the one for float and the one for bfloat16, to be looked up by name.
#define BOTH(NAME) void* redraft_##NAME[] = {reinterpret_cast<void*>(NAME<float>), reinterpret_cast<void*>(NAME<BFloat16>)};

extern "C" {
BOTH(norm)
BOTH(branch)
BOTH(merge)
BOTH(heads)
BOTH(gate)
BOTH(route)
BOTH(quantize)
BOTH(scale_sums)
BOTH(read_tile)
BOTH(read_classes)
BOTH(accumulate)

int64_t redraft_panel = PANEL, redraft_rows = ROWS, redraft_share = SHARE;

// Ends the calling thread's team of workers; its next parallel region makes a new one.
int redraft_release_workers() { return omp_pause_resource_all(omp_pause_hard); }

// Null where the processor has no instructions for it.
#if defined(__AVX512BF16__)
BOTH(multiply)
BOTH(attend)
#elif defined(__AVX512F__)
void* redraft_multiply[] = {reinterpret_cast<void*>(multiply<float>), nullptr};
void* redraft_attend[] = {reinterpret_cast<void*>(attend<float>), nullptr};
#else
void *redraft_multiply[] = {nullptr, nullptr}, *redraft_attend[] = {nullptr, nullptr};
#endif
}
