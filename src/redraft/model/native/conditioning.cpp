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

// weights [E]: what each arc has at a position whose classes have `masses` [K], before states that have `after` [S].
inline void weigh(const int32_t* arc_class, const int32_t* target, const double* masses, const double* after,
                  double* weights, int64_t arcs) {
#pragma omp simd
    for (int64_t arc = 0; arc < arcs; ++arc) weights[arc] = masses[arc_class[arc]] + after[target[arc]];
}

}  // namespace

extern "C" {

// after [C + 1, S], whose last row is given, and probs [C, K]; source int32 [E], weights [E], at [2 S] are for working.
void redraft_condition(const int32_t* first, const int32_t* arc_class, const int32_t* target, const double* masses,
                       int64_t state, double* after, double* probs, int32_t* source, double* weights, double* at,
                       int64_t length, int64_t states, int64_t classes) {
    const int64_t arcs = first[states];
    for (int64_t s = 0; s < states; ++s)
        for (int64_t arc = first[s]; arc < first[s + 1]; ++arc) source[arc] = static_cast<int32_t>(s);
    for (int64_t i = length - 1; i >= 0; --i) {
        double* from = after + i * states;
        weigh(arc_class, target, masses + i * classes, from + states, weights, arcs);
        for (int64_t s = 0; s < states; ++s) {
            double peak = -INFINITY;
            for (int64_t arc = first[s]; arc < first[s + 1]; ++arc) peak = weights[arc] > peak ? weights[arc] : peak;
            from[s] = peak;
            // Of arcs that are all impossible nothing may become a number.
            double shift = peak > -INFINITY ? peak : 0.0;
            for (int64_t arc = first[s]; arc < first[s + 1]; ++arc) weights[arc] -= shift;
        }
#pragma omp simd
        for (int64_t arc = 0; arc < arcs; ++arc) weights[arc] = exponential(weights[arc]);
        for (int64_t s = 0; s < states; ++s) {
            double sum = 0;
            for (int64_t arc = first[s]; arc < first[s + 1]; ++arc) sum += weights[arc];
            from[s] += std::log(sum);
        }
    }
    std::memset(probs, 0, sizeof(double) * length * classes);
    std::memset(at, 0, sizeof(double) * 2 * states);
    at[state] = after[state] > -INFINITY;
    for (int64_t i = 0; i < length; ++i) {
        const double* from = after + i * states;
        double *here = at + i % 2 * states, *next = at + (i + 1) % 2 * states, *of_class = probs + i * classes;
        weigh(arc_class, target, masses + i * classes, from + states, weights, arcs);
#pragma omp simd
        for (int64_t arc = 0; arc < arcs; ++arc) {
            double log_step = weights[arc] - from[source[arc]];
            // Rounding may take it above 0; where a state is not reached it may be anything.
            double flow = here[source[arc]];
            weights[arc] = flow > 0 ? flow * exponential(log_step < 0 ? log_step : 0.0) : 0.0;
        }
        std::memset(next, 0, sizeof(double) * states);
        for (int64_t arc = 0; arc < arcs; ++arc) {
            of_class[arc_class[arc]] += weights[arc];
            next[target[arc]] += weights[arc];
        }
    }
}

// classes int64 [C] of the likeliest canvas by scores [C, K]; returns what they add up to. after [2 S], whose first half
// is given; choices int32 [C, S] are for working.
double redraft_likeliest(const int32_t* first, const int32_t* arc_class, const int32_t* target, const double* scores,
                         int64_t state, double* after, int32_t* choices, int64_t* chosen, int64_t length,
                         int64_t states, int64_t classes) {
    double *then = after, *now = after + states;
    for (int64_t i = length - 1; i >= 0; --i) {
        const double* of_class = scores + i * classes;
        for (int64_t s = 0; s < states; ++s) {
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
