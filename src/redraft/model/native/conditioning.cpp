// The recursions of constraints/conditioning.py along a canvas, over the arcs of an automaton.
//
// Each is the twin of a few lines of numpy there; shapes are the caller's business, and so is memory. The arcs of state s
// are first[s] to first[s + 1] - 1. C positions, S states, E arcs, K classes.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

// For x up to 0, without branches, so that loops over it become vector code (as power in kernels.cpp).
inline double exponential(double x) {
    double bounded = x < -708.0 ? -708.0 : x;
    double whole = std::nearbyint(bounded * 1.4426950408889634);
    double rest = (bounded - whole * 6.93147180369123816490e-01) - whole * 1.90821492927058770002e-10;
    double series = 1.0 / 479001600;
    series = series * rest + 1.0 / 39916800;
    series = series * rest + 1.0 / 3628800;
    series = series * rest + 1.0 / 362880;
    series = series * rest + 1.0 / 40320;
    series = series * rest + 1.0 / 5040;
    series = series * rest + 1.0 / 720;
    series = series * rest + 1.0 / 120;
    series = series * rest + 1.0 / 24;
    series = series * rest + 1.0 / 6;
    series = series * rest + 1.0 / 2;
    series = series * rest + 1.0;
    series = series * rest + 1.0;
    int64_t bits = (static_cast<int64_t>(whole) + 1023) << 52;
    double scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return x < -708.0 ? 0.0 : scale * series;
}

// A state less probable than this at a position counts for nothing there: all of them together stay below a rounding.
constexpr double NEGLIGIBLE = 1e-20;

// States low[i] to high[i] - 1 hold all that lie at most i arcs behind `state`, for i up to `length`. States are numbered
// about in that order, so what lies too far behind is left out, and so is what lies before. queue [S], is_known [S].
void reach(const int32_t* first, const int32_t* target, int64_t state, int32_t* low, int32_t* high, int32_t* queue,
           uint8_t* is_known, int64_t length, int64_t states) {
    std::memset(is_known, 0, states);
    is_known[state] = 1;
    queue[0] = static_cast<int32_t>(state);
    low[0] = queue[0], high[0] = queue[0] + 1;
    int64_t begin = 0, end = 1;
    for (int64_t i = 1; i <= length; ++i) {
        low[i] = low[i - 1], high[i] = high[i - 1];
        for (int64_t stop = end; begin < stop; ++begin)
            for (int32_t arc = first[queue[begin]]; arc < first[queue[begin] + 1]; ++arc) {
                int32_t found = target[arc];
                if (is_known[found]) continue;
                is_known[found] = 1;
                queue[end++] = found;
                low[i] = found < low[i] ? found : low[i];
                high[i] = found >= high[i] ? found + 1 : high[i];
            }
    }
}

}  // namespace

extern "C" {

// after [C + 1, S], whose last row is given, is written for the states that `reach` holds; probs [C, K] is given as zeros.
// For working are low and high int32 [C + 1], queue int32 [E], is_known [S], weights [E], at [2 S].
void redraft_condition(const int32_t* first, const int32_t* arc_class, const int32_t* target, const double* masses,
                       int64_t state, double* after, double* probs, int32_t* low, int32_t* high, int32_t* queue,
                       uint8_t* is_known, double* weights, double* at, int64_t length, int64_t states,
                       int64_t classes) {
    reach(first, target, state, low, high, queue, is_known, length, states);
    for (int64_t i = length - 1; i >= 0; --i) {
        const double *of_class = masses + i * classes, *then = after + (i + 1) * states;
        double* now = after + i * states;
        const int32_t begin = first[low[i]], end = first[high[i]];
#pragma omp simd
        for (int32_t arc = begin; arc < end; ++arc) weights[arc] = of_class[arc_class[arc]] + then[target[arc]];
        for (int32_t s = low[i]; s < high[i]; ++s) {
            double peak = -INFINITY;
            for (int32_t arc = first[s]; arc < first[s + 1]; ++arc) peak = weights[arc] > peak ? weights[arc] : peak;
            now[s] = peak;
            // Of arcs that are all impossible nothing may become a number.
            double shift = peak > -INFINITY ? peak : 0.0;
            for (int32_t arc = first[s]; arc < first[s + 1]; ++arc) weights[arc] -= shift;
        }
#pragma omp simd
        for (int32_t arc = begin; arc < end; ++arc) weights[arc] = exponential(weights[arc]);
        for (int32_t s = low[i]; s < high[i]; ++s) {
            double sum = 0;
            for (int32_t arc = first[s]; arc < first[s + 1]; ++arc) sum += weights[arc];
            now[s] += std::log(sum);
        }
    }
    std::memset(at, 0, sizeof(double) * 2 * states);
    at[state] = after[state] > -INFINITY;
    for (int64_t i = 0; i < length; ++i) {
        const double *of_class = masses + i * classes, *now = after + i * states, *then = now + states;
        double *here = at + i % 2 * states, *next = at + (i + 1) % 2 * states, *found = probs + i * classes;
        int64_t count = 0;
        for (int32_t s = low[i]; s < high[i]; ++s) {
            if (here[s] > NEGLIGIBLE) {
                double log_share = std::log(here[s]) - now[s];
                for (int32_t arc = first[s]; arc < first[s + 1]; ++arc) {
                    queue[count] = arc;
                    weights[count++] = log_share;
                }
            }
            here[s] = 0;
        }
#pragma omp simd
        for (int64_t j = 0; j < count; ++j) {
            double log_flow = weights[j] + of_class[arc_class[queue[j]]] + then[target[queue[j]]];
            // Rounding may take it above 0.
            weights[j] = exponential(log_flow < 0 ? log_flow : 0.0);
        }
        for (int64_t j = 0; j < count; ++j) {
            found[arc_class[queue[j]]] += weights[j];
            next[target[queue[j]]] += weights[j];
        }
    }
}

// classes int64 [C] of the likeliest canvas by scores [C, K]; returns what they add up to. after [2 S], whose first half
// is given; for working are choices int32 [C, S], and low, high, queue and is_known as above.
double redraft_likeliest(const int32_t* first, const int32_t* arc_class, const int32_t* target, const double* scores,
                         int64_t state, double* after, int32_t* choices, int64_t* chosen, int32_t* low, int32_t* high,
                         int32_t* queue, uint8_t* is_known, int64_t length, int64_t states, int64_t classes) {
    reach(first, target, state, low, high, queue, is_known, length, states);
    double *then = after, *now = after + states;
    for (int64_t i = length - 1; i >= 0; --i) {
        const double* of_class = scores + i * classes;
        for (int32_t s = low[i]; s < high[i]; ++s) {
            double best = -INFINITY;
            int32_t choice = first[s];
            for (int32_t arc = first[s]; arc < first[s + 1]; ++arc) {
                double weight = of_class[arc_class[arc]] + then[target[arc]];
                // Of several the first.
                choice = weight > best ? arc : choice;
                best = weight > best ? weight : best;
            }
            now[s] = best;
            choices[i * states + s] = choice;
        }
        double* free = then;
        then = now;
        now = free;
    }
    double found = then[state];
    for (int64_t i = 0; i < length; ++i) {
        int32_t arc = choices[i * states + state];
        chosen[i] = arc_class[arc];
        state = target[arc];
    }
    return found;
}
}
