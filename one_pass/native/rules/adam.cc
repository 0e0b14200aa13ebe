// Written by `python -m tools.one_pass`, of jaxopt_impl/adam.py; not by hand.
#include "../rounded.h"

namespace {

// adam_08c9213c: nothing set
void numbers_0(const double* h, double* c) {
    c[0] = h[1];
    c[1] = (1.0 - h[1]);
    c[2] = h[2];
    c[3] = (1.0 - h[2]);
    c[4] = (h[0] / (1.0 - power(h[1], h[12])));
    c[5] = sqrt((1.0 - power(h[2], h[12])));
    c[6] = h[3];
}
template <class T, bool applied> void loop_0(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T x0 = c0 * exp_avg;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = c2 * exp_avg_sq;
        const T x4 = g * g;
        const T x5 = c3 * x4;
        const T x6 = x3 + x5;
        const T x7 = c4 * x2;
        const T x8 = root(x6);
        const T x9 = x8 / c5;
        const T x10 = x9 + c6;
        const T x11 = x7 / x10;
        const T x12 = -x11;
        next_exp_avg[i] = kept(x2);
        next_exp_avg_sq[i] = kept(x6);
        next_u[i] = kept(applied ? p + x12 : x12);
    }
}

// adam_98e5e45d: amsgrad
// numbers_0, as above
template <class T, bool applied> void loop_1(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    const Array<T>* max_exp_avg_sq_ = of<T>(a.before[2]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_max_exp_avg_sq = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T max_exp_avg_sq = Element<T>::of(max_exp_avg_sq_[i]);
        const T x0 = c0 * exp_avg;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = c2 * exp_avg_sq;
        const T x4 = g * g;
        const T x5 = c3 * x4;
        const T x6 = x3 + x5;
        const T x7 = larger(max_exp_avg_sq, x6);
        const T x8 = c4 * x2;
        const T x9 = root(x7);
        const T x10 = x9 / c5;
        const T x11 = x10 + c6;
        const T x12 = x8 / x11;
        const T x13 = -x12;
        next_exp_avg[i] = kept(x2);
        next_exp_avg_sq[i] = kept(x6);
        next_max_exp_avg_sq[i] = kept(x7);
        next_u[i] = kept(applied ? p + x13 : x13);
    }
}

// adam_34bf2f8b: weight_decay
void numbers_1(const double* h, double* c) {
    c[0] = h[4];
    c[1] = h[1];
    c[2] = (1.0 - h[1]);
    c[3] = h[2];
    c[4] = (1.0 - h[2]);
    c[5] = (h[0] / (1.0 - power(h[1], h[12])));
    c[6] = sqrt((1.0 - power(h[2], h[12])));
    c[7] = h[3];
}
template <class T, bool applied> void loop_2(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * exp_avg;
        const T x4 = c2 * x2;
        const T x5 = x3 + x4;
        const T x6 = c3 * exp_avg_sq;
        const T x7 = x2 * x2;
        const T x8 = c4 * x7;
        const T x9 = x6 + x8;
        const T x10 = c5 * x5;
        const T x11 = root(x9);
        const T x12 = x11 / c6;
        const T x13 = x12 + c7;
        const T x14 = x10 / x13;
        const T x15 = -x14;
        next_exp_avg[i] = kept(x5);
        next_exp_avg_sq[i] = kept(x9);
        next_u[i] = kept(applied ? p + x15 : x15);
    }
}

// adam_cc286706: amsgrad, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_3(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    const Array<T>* max_exp_avg_sq_ = of<T>(a.before[2]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_max_exp_avg_sq = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T max_exp_avg_sq = Element<T>::of(max_exp_avg_sq_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * exp_avg;
        const T x4 = c2 * x2;
        const T x5 = x3 + x4;
        const T x6 = c3 * exp_avg_sq;
        const T x7 = x2 * x2;
        const T x8 = c4 * x7;
        const T x9 = x6 + x8;
        const T x10 = larger(max_exp_avg_sq, x9);
        const T x11 = c5 * x5;
        const T x12 = root(x10);
        const T x13 = x12 / c6;
        const T x14 = x13 + c7;
        const T x15 = x11 / x14;
        const T x16 = -x15;
        next_exp_avg[i] = kept(x5);
        next_exp_avg_sq[i] = kept(x9);
        next_max_exp_avg_sq[i] = kept(x10);
        next_u[i] = kept(applied ? p + x16 : x16);
    }
}

// adam_a1fd8a4c: decoupled_weight_decay, weight_decay
void numbers_2(const double* h, double* c) {
    c[0] = h[1];
    c[1] = (1.0 - h[1]);
    c[2] = h[2];
    c[3] = (1.0 - h[2]);
    c[4] = (h[0] / (1.0 - power(h[1], h[12])));
    c[5] = sqrt((1.0 - power(h[2], h[12])));
    c[6] = h[3];
    c[7] = (h[0] * h[4]);
    c[8] = h[4];
}
template <class T, bool applied> void loop_4(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z8 = a.c[8] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T x0 = c0 * exp_avg;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = c2 * exp_avg_sq;
        const T x4 = g * g;
        const T x5 = c3 * x4;
        const T x6 = x3 + x5;
        const T x7 = c4 * x2;
        const T x8 = root(x6);
        const T x9 = x8 / c5;
        const T x10 = x9 + c6;
        const T x11 = x7 / x10;
        const T x12 = c7 * p;
        const T x13 = x11 + x12;
        const T x14 = z8 ? x11 : x13;
        const T x15 = -x14;
        next_exp_avg[i] = kept(x2);
        next_exp_avg_sq[i] = kept(x6);
        next_u[i] = kept(applied ? p + x15 : x15);
    }
}

// adam_8eb9bf68: amsgrad, decoupled_weight_decay, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_5(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    const Array<T>* max_exp_avg_sq_ = of<T>(a.before[2]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_max_exp_avg_sq = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z8 = a.c[8] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T max_exp_avg_sq = Element<T>::of(max_exp_avg_sq_[i]);
        const T x0 = c0 * exp_avg;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = c2 * exp_avg_sq;
        const T x4 = g * g;
        const T x5 = c3 * x4;
        const T x6 = x3 + x5;
        const T x7 = larger(max_exp_avg_sq, x6);
        const T x8 = c4 * x2;
        const T x9 = root(x7);
        const T x10 = x9 / c5;
        const T x11 = x10 + c6;
        const T x12 = x8 / x11;
        const T x13 = c7 * p;
        const T x14 = x12 + x13;
        const T x15 = z8 ? x12 : x14;
        const T x16 = -x15;
        next_exp_avg[i] = kept(x2);
        next_exp_avg_sq[i] = kept(x6);
        next_max_exp_avg_sq[i] = kept(x7);
        next_u[i] = kept(applied ? p + x16 : x16);
    }
}

// adam_1ea708a7: maximize
// numbers_0, as above
template <class T, bool applied> void loop_6(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T x0 = -g;
        const T x1 = c0 * exp_avg;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = c2 * exp_avg_sq;
        const T x5 = x0 * x0;
        const T x6 = c3 * x5;
        const T x7 = x4 + x6;
        const T x8 = c4 * x3;
        const T x9 = root(x7);
        const T x10 = x9 / c5;
        const T x11 = x10 + c6;
        const T x12 = x8 / x11;
        const T x13 = -x12;
        next_exp_avg[i] = kept(x3);
        next_exp_avg_sq[i] = kept(x7);
        next_u[i] = kept(applied ? p + x13 : x13);
    }
}

// adam_35e62cb2: amsgrad, maximize
// numbers_0, as above
template <class T, bool applied> void loop_7(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    const Array<T>* max_exp_avg_sq_ = of<T>(a.before[2]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_max_exp_avg_sq = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T max_exp_avg_sq = Element<T>::of(max_exp_avg_sq_[i]);
        const T x0 = -g;
        const T x1 = c0 * exp_avg;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = c2 * exp_avg_sq;
        const T x5 = x0 * x0;
        const T x6 = c3 * x5;
        const T x7 = x4 + x6;
        const T x8 = larger(max_exp_avg_sq, x7);
        const T x9 = c4 * x3;
        const T x10 = root(x8);
        const T x11 = x10 / c5;
        const T x12 = x11 + c6;
        const T x13 = x9 / x12;
        const T x14 = -x13;
        next_exp_avg[i] = kept(x3);
        next_exp_avg_sq[i] = kept(x7);
        next_max_exp_avg_sq[i] = kept(x8);
        next_u[i] = kept(applied ? p + x14 : x14);
    }
}

// adam_0e873110: maximize, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_8(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * exp_avg;
        const T x5 = c2 * x3;
        const T x6 = x4 + x5;
        const T x7 = c3 * exp_avg_sq;
        const T x8 = x3 * x3;
        const T x9 = c4 * x8;
        const T x10 = x7 + x9;
        const T x11 = c5 * x6;
        const T x12 = root(x10);
        const T x13 = x12 / c6;
        const T x14 = x13 + c7;
        const T x15 = x11 / x14;
        const T x16 = -x15;
        next_exp_avg[i] = kept(x6);
        next_exp_avg_sq[i] = kept(x10);
        next_u[i] = kept(applied ? p + x16 : x16);
    }
}

// adam_8f5f0ee1: amsgrad, maximize, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_9(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    const Array<T>* max_exp_avg_sq_ = of<T>(a.before[2]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_max_exp_avg_sq = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T max_exp_avg_sq = Element<T>::of(max_exp_avg_sq_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * exp_avg;
        const T x5 = c2 * x3;
        const T x6 = x4 + x5;
        const T x7 = c3 * exp_avg_sq;
        const T x8 = x3 * x3;
        const T x9 = c4 * x8;
        const T x10 = x7 + x9;
        const T x11 = larger(max_exp_avg_sq, x10);
        const T x12 = c5 * x6;
        const T x13 = root(x11);
        const T x14 = x13 / c6;
        const T x15 = x14 + c7;
        const T x16 = x12 / x15;
        const T x17 = -x16;
        next_exp_avg[i] = kept(x6);
        next_exp_avg_sq[i] = kept(x10);
        next_max_exp_avg_sq[i] = kept(x11);
        next_u[i] = kept(applied ? p + x17 : x17);
    }
}

// adam_54b125a6: decoupled_weight_decay, maximize, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_10(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z8 = a.c[8] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T x0 = -g;
        const T x1 = c0 * exp_avg;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = c2 * exp_avg_sq;
        const T x5 = x0 * x0;
        const T x6 = c3 * x5;
        const T x7 = x4 + x6;
        const T x8 = c4 * x3;
        const T x9 = root(x7);
        const T x10 = x9 / c5;
        const T x11 = x10 + c6;
        const T x12 = x8 / x11;
        const T x13 = c7 * p;
        const T x14 = x12 + x13;
        const T x15 = z8 ? x12 : x14;
        const T x16 = -x15;
        next_exp_avg[i] = kept(x3);
        next_exp_avg_sq[i] = kept(x7);
        next_u[i] = kept(applied ? p + x16 : x16);
    }
}

// adam_4b50ddd1: amsgrad, decoupled_weight_decay, maximize, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_11(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    const Array<T>* exp_avg_sq_ = of<T>(a.before[1]);
    const Array<T>* max_exp_avg_sq_ = of<T>(a.before[2]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_exp_avg_sq = of<T>(a.after[1]);
    Array<T>* next_max_exp_avg_sq = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const T c7(a.c[7]);
    const bool z8 = a.c[8] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T exp_avg_sq = Element<T>::of(exp_avg_sq_[i]);
        const T max_exp_avg_sq = Element<T>::of(max_exp_avg_sq_[i]);
        const T x0 = -g;
        const T x1 = c0 * exp_avg;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = c2 * exp_avg_sq;
        const T x5 = x0 * x0;
        const T x6 = c3 * x5;
        const T x7 = x4 + x6;
        const T x8 = larger(max_exp_avg_sq, x7);
        const T x9 = c4 * x3;
        const T x10 = root(x8);
        const T x11 = x10 / c5;
        const T x12 = x11 + c6;
        const T x13 = x9 / x12;
        const T x14 = c7 * p;
        const T x15 = x13 + x14;
        const T x16 = z8 ? x13 : x15;
        const T x17 = -x16;
        next_exp_avg[i] = kept(x3);
        next_exp_avg_sq[i] = kept(x7);
        next_max_exp_avg_sq[i] = kept(x8);
        next_u[i] = kept(applied ? p + x17 : x17);
    }
}

}  // namespace

extern const Program TABLE(adam)[] = {
    {"adam_08c9213c", 2, numbers_0, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"adam_98e5e45d", 3, numbers_0, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"adam_34bf2f8b", 2, numbers_1, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"adam_cc286706", 3, numbers_1, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {"adam_a1fd8a4c", 2, numbers_2, {loop_4<float, false>, loop_4<double, false>, loop_4<BFloat16, false>, loop_4<Float16, false>}, {loop_4<float, true>, loop_4<double, true>}},
    {"adam_8eb9bf68", 3, numbers_2, {loop_5<float, false>, loop_5<double, false>, loop_5<BFloat16, false>, loop_5<Float16, false>}, {loop_5<float, true>, loop_5<double, true>}},
    {"adam_1ea708a7", 2, numbers_0, {loop_6<float, false>, loop_6<double, false>, loop_6<BFloat16, false>, loop_6<Float16, false>}, {loop_6<float, true>, loop_6<double, true>}},
    {"adam_35e62cb2", 3, numbers_0, {loop_7<float, false>, loop_7<double, false>, loop_7<BFloat16, false>, loop_7<Float16, false>}, {loop_7<float, true>, loop_7<double, true>}},
    {"adam_0e873110", 2, numbers_1, {loop_8<float, false>, loop_8<double, false>, loop_8<BFloat16, false>, loop_8<Float16, false>}, {loop_8<float, true>, loop_8<double, true>}},
    {"adam_8f5f0ee1", 3, numbers_1, {loop_9<float, false>, loop_9<double, false>, loop_9<BFloat16, false>, loop_9<Float16, false>}, {loop_9<float, true>, loop_9<double, true>}},
    {"adam_54b125a6", 2, numbers_2, {loop_10<float, false>, loop_10<double, false>, loop_10<BFloat16, false>, loop_10<Float16, false>}, {loop_10<float, true>, loop_10<double, true>}},
    {"adam_4b50ddd1", 3, numbers_2, {loop_11<float, false>, loop_11<double, false>, loop_11<BFloat16, false>, loop_11<Float16, false>}, {loop_11<float, true>, loop_11<double, true>}},
    {},
};
