// Numbers on which + - * / and the root round once, to float, double, bfloat16 or float16. It is compiled without contraction and without
// fast math, and once for each instruction set: everything here is in an anonymous namespace, so that no set gets the code of another.
#pragma once
#include <cstdint>
#include <cstring>

#include "programs.h"

#if defined(__clang__)
#define EACH_ALONE _Pragma("clang loop vectorize(assume_safety)")
#else
#define EACH_ALONE _Pragma("GCC ivdep")
#endif

#define JOINED(a, b) a##_##b
#define NAMED(a, b) JOINED(a, b)
#define TABLE(kernel) NAMED(kernel, INSTRUCTIONS)

namespace {

inline uint32_t bits(float x) { uint32_t b; std::memcpy(&b, &x, 4); return b; }
inline uint64_t bits(double x) { uint64_t b; std::memcpy(&b, &x, 8); return b; }
inline float number(uint32_t b) { float x; std::memcpy(&x, &b, 4); return x; }
inline double number(uint64_t b) { double x; std::memcpy(&x, &b, 8); return x; }

// To the nearest bfloat16, ties to even; NaN stays NaN.
inline float to_bfloat16(float x) {
    const uint32_t b = bits(x);
    const uint32_t rounded = (b + 0x7fff + (b >> 16 & 1)) & 0xffff0000;
    return number(x != x ? b | 0x400000 : rounded);
}

// To the nearest float16, ties to even. Below 2^-14 its numbers are as far apart as the floats between 1/2 and 1.
inline float to_float16(float x) {
    const uint32_t b = bits(x), sign = b & 0x80000000, size = b & 0x7fffffff;
    const float small = (number(size) + 0.5f) - 0.5f;
    const uint32_t normal = (size + 0xfff + (size >> 13 & 1)) & 0xffffe000;
    const uint32_t large = size > 0x7f800000 ? size | 0x400000 : normal >= 0x47800000 ? 0x7f800000 : normal;
    return number((size < 0x38800000 ? bits(small) : large) | sign);
}

struct RoundBFloat16 { static float of(float x) { return to_bfloat16(x); } };
struct RoundFloat16 { static float of(float x) { return to_float16(x); } };

// A half, computed in float and rounded after each operation. A constant is rounded to float.
template <class Round> struct Half {
    float x;
    Half() = default;
    explicit Half(double number) : x(float(number)) {}
    static Half of(float x) { Half h; h.x = Round::of(x); return h; }
    Half operator-() const { Half h; h.x = -x; return h; }
};
template <class R> Half<R> operator+(Half<R> a, Half<R> b) { return Half<R>::of(a.x + b.x); }
template <class R> Half<R> operator-(Half<R> a, Half<R> b) { return Half<R>::of(a.x - b.x); }
template <class R> Half<R> operator*(Half<R> a, Half<R> b) { return Half<R>::of(a.x * b.x); }
template <class R> Half<R> operator/(Half<R> a, Half<R> b) { return Half<R>::of(a.x / b.x); }
using BFloat16 = Half<RoundBFloat16>;
using Float16 = Half<RoundFloat16>;

inline float root(float x) { return __builtin_sqrtf(x); }
inline double root(double x) { return __builtin_sqrt(x); }
template <class R> Half<R> root(Half<R> a) { return Half<R>::of(__builtin_sqrtf(a.x)); }

// +1 or -1; a zero of either sign, and NaN, as they are.
template <class T> T sign(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; }
template <class R> Half<R> sign(Half<R> a) { a.x = sign(a.x); return a; }

// The larger of two, NaN if one is.
template <class T> T larger(T a, T b) { return a != a ? a : b != b ? b : a < b ? b : a; }
template <class R> Half<R> larger(Half<R> a, Half<R> b) { a.x = larger(a.x, b.x); return a; }

inline double sqrt(double x) { return __builtin_sqrt(x); }

// base^t by binary powering, the least significant bit first.
inline double power(double base, double t) {
    double result = 1;
    for (uint64_t n = uint64_t(t); n; n >>= 1) {
        if (n & 1) result = result * base;
        base = base * base;
    }
    return result;
}

// In memory a half is the float that it is computed in.
template <class T> struct InMemory { using Type = T; };
template <class R> struct InMemory<Half<R>> { using Type = float; };
template <class T> using Array = typename InMemory<T>::Type;

template <class T> const Array<T>* of(const void* x) { return static_cast<const Array<T>*>(x); }
template <class T> Array<T>* of(void* x) { return static_cast<Array<T>*>(x); }
inline float kept(float x) { return x; }
inline double kept(double x) { return x; }
template <class R> float kept(Half<R> a) { return a.x; }
template <class T> struct Element { static T of(T x) { return x; } };
template <class R> struct Element<Half<R>> { static Half<R> of(float x) { Half<R> h; h.x = x; return h; } };

}  // namespace
