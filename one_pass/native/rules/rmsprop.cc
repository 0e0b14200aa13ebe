// Written by `python -m tools.one_pass`, of jaxopt_impl/rmsprop.py; not by hand.
#include "../rounded.h"

namespace {

// rmsprop_e6976831: nothing set
void numbers_0(const double* h, double* c) {
    c[0] = h[1];
    c[1] = (1.0 - h[1]);
    c[2] = h[2];
    c[3] = h[0];
}
template <class T, bool applied> void loop_0(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T x0 = c0 * square_avg;
        const T x1 = g * g;
        const T x2 = c1 * x1;
        const T x3 = x0 + x2;
        const T x4 = root(x3);
        const T x5 = x4 + c2;
        const T x6 = c3 * g;
        const T x7 = x6 / x5;
        const T x8 = -x7;
        next_square_avg[i] = kept(x3);
        next_u[i] = kept(applied ? p + x8 : x8);
    }
}

// rmsprop_dfb21ead: momentum
void numbers_1(const double* h, double* c) {
    c[0] = h[1];
    c[1] = (1.0 - h[1]);
    c[2] = h[2];
    c[3] = h[4];
    c[4] = -h[0];
    c[5] = h[0];
}
template <class T, bool applied> void loop_1(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const bool z3 = a.c[3] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = c0 * square_avg;
        const T x1 = g * g;
        const T x2 = c1 * x1;
        const T x3 = x0 + x2;
        const T x4 = root(x3);
        const T x5 = x4 + c2;
        const T x6 = c3 * momentum_buffer;
        const T x7 = g / x5;
        const T x8 = x6 + x7;
        const T x9 = c4 * x8;
        const T x10 = c5 * g;
        const T x11 = x10 / x5;
        const T x12 = -x11;
        const T x13 = z3 ? x12 : x9;
        const T x14 = z3 ? momentum_buffer : x8;
        next_square_avg[i] = kept(x3);
        next_momentum_buffer[i] = kept(x14);
        next_u[i] = kept(applied ? p + x13 : x13);
    }
}

// rmsprop_2a2ebf3f: centered
// numbers_0, as above
template <class T, bool applied> void loop_2(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* grad_avg_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_grad_avg = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = c0 * square_avg;
        const T x1 = g * g;
        const T x2 = c1 * x1;
        const T x3 = x0 + x2;
        const T x4 = c0 * grad_avg;
        const T x5 = c1 * g;
        const T x6 = x4 + x5;
        const T x7 = x6 * x6;
        const T x8 = x3 - x7;
        const T x9 = root(x8);
        const T x10 = x9 + c2;
        const T x11 = c3 * g;
        const T x12 = x11 / x10;
        const T x13 = -x12;
        next_square_avg[i] = kept(x3);
        next_grad_avg[i] = kept(x6);
        next_u[i] = kept(applied ? p + x13 : x13);
    }
}

// rmsprop_cb8f2e9e: centered, momentum
// numbers_1, as above
template <class T, bool applied> void loop_3(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    const Array<T>* grad_avg_ = of<T>(a.before[2]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_grad_avg = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const bool z3 = a.c[3] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = c0 * square_avg;
        const T x1 = g * g;
        const T x2 = c1 * x1;
        const T x3 = x0 + x2;
        const T x4 = c0 * grad_avg;
        const T x5 = c1 * g;
        const T x6 = x4 + x5;
        const T x7 = x6 * x6;
        const T x8 = x3 - x7;
        const T x9 = root(x8);
        const T x10 = x9 + c2;
        const T x11 = c3 * momentum_buffer;
        const T x12 = g / x10;
        const T x13 = x11 + x12;
        const T x14 = c4 * x13;
        const T x15 = c5 * g;
        const T x16 = x15 / x10;
        const T x17 = -x16;
        const T x18 = z3 ? x17 : x14;
        const T x19 = z3 ? momentum_buffer : x13;
        next_square_avg[i] = kept(x3);
        next_momentum_buffer[i] = kept(x19);
        next_grad_avg[i] = kept(x6);
        next_u[i] = kept(applied ? p + x18 : x18);
    }
}

// rmsprop_6a797e2f: weight_decay
void numbers_2(const double* h, double* c) {
    c[0] = h[3];
    c[1] = h[1];
    c[2] = (1.0 - h[1]);
    c[3] = h[2];
    c[4] = h[0];
}
template <class T, bool applied> void loop_4(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * square_avg;
        const T x4 = x2 * x2;
        const T x5 = c2 * x4;
        const T x6 = x3 + x5;
        const T x7 = root(x6);
        const T x8 = x7 + c3;
        const T x9 = c4 * x2;
        const T x10 = x9 / x8;
        const T x11 = -x10;
        next_square_avg[i] = kept(x6);
        next_u[i] = kept(applied ? p + x11 : x11);
    }
}

// rmsprop_10588ac8: momentum, weight_decay
void numbers_3(const double* h, double* c) {
    c[0] = h[3];
    c[1] = h[1];
    c[2] = (1.0 - h[1]);
    c[3] = h[2];
    c[4] = h[4];
    c[5] = -h[0];
    c[6] = h[0];
}
template <class T, bool applied> void loop_5(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const bool z0 = a.c[0] == 0;
    const bool z4 = a.c[4] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * square_avg;
        const T x4 = x2 * x2;
        const T x5 = c2 * x4;
        const T x6 = x3 + x5;
        const T x7 = root(x6);
        const T x8 = x7 + c3;
        const T x9 = c4 * momentum_buffer;
        const T x10 = x2 / x8;
        const T x11 = x9 + x10;
        const T x12 = c5 * x11;
        const T x13 = c6 * x2;
        const T x14 = x13 / x8;
        const T x15 = -x14;
        const T x16 = z4 ? x15 : x12;
        const T x17 = z4 ? momentum_buffer : x11;
        next_square_avg[i] = kept(x6);
        next_momentum_buffer[i] = kept(x17);
        next_u[i] = kept(applied ? p + x16 : x16);
    }
}

// rmsprop_5e15810a: centered, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_6(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* grad_avg_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_grad_avg = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * square_avg;
        const T x4 = x2 * x2;
        const T x5 = c2 * x4;
        const T x6 = x3 + x5;
        const T x7 = c1 * grad_avg;
        const T x8 = c2 * x2;
        const T x9 = x7 + x8;
        const T x10 = x9 * x9;
        const T x11 = x6 - x10;
        const T x12 = root(x11);
        const T x13 = x12 + c3;
        const T x14 = c4 * x2;
        const T x15 = x14 / x13;
        const T x16 = -x15;
        next_square_avg[i] = kept(x6);
        next_grad_avg[i] = kept(x9);
        next_u[i] = kept(applied ? p + x16 : x16);
    }
}

// rmsprop_9a68b350: centered, momentum, weight_decay
// numbers_3, as above
template <class T, bool applied> void loop_7(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    const Array<T>* grad_avg_ = of<T>(a.before[2]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_grad_avg = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const bool z0 = a.c[0] == 0;
    const bool z4 = a.c[4] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * square_avg;
        const T x4 = x2 * x2;
        const T x5 = c2 * x4;
        const T x6 = x3 + x5;
        const T x7 = c1 * grad_avg;
        const T x8 = c2 * x2;
        const T x9 = x7 + x8;
        const T x10 = x9 * x9;
        const T x11 = x6 - x10;
        const T x12 = root(x11);
        const T x13 = x12 + c3;
        const T x14 = c4 * momentum_buffer;
        const T x15 = x2 / x13;
        const T x16 = x14 + x15;
        const T x17 = c5 * x16;
        const T x18 = c6 * x2;
        const T x19 = x18 / x13;
        const T x20 = -x19;
        const T x21 = z4 ? x20 : x17;
        const T x22 = z4 ? momentum_buffer : x16;
        next_square_avg[i] = kept(x6);
        next_momentum_buffer[i] = kept(x22);
        next_grad_avg[i] = kept(x9);
        next_u[i] = kept(applied ? p + x21 : x21);
    }
}

// rmsprop_5d3c75a0: maximize
// numbers_0, as above
template <class T, bool applied> void loop_8(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * square_avg;
        const T x2 = x0 * x0;
        const T x3 = c1 * x2;
        const T x4 = x1 + x3;
        const T x5 = root(x4);
        const T x6 = x5 + c2;
        const T x7 = c3 * x0;
        const T x8 = x7 / x6;
        const T x9 = -x8;
        next_square_avg[i] = kept(x4);
        next_u[i] = kept(applied ? p + x9 : x9);
    }
}

// rmsprop_c39e11da: maximize, momentum
// numbers_1, as above
template <class T, bool applied> void loop_9(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const bool z3 = a.c[3] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = -g;
        const T x1 = c0 * square_avg;
        const T x2 = x0 * x0;
        const T x3 = c1 * x2;
        const T x4 = x1 + x3;
        const T x5 = root(x4);
        const T x6 = x5 + c2;
        const T x7 = c3 * momentum_buffer;
        const T x8 = x0 / x6;
        const T x9 = x7 + x8;
        const T x10 = c4 * x9;
        const T x11 = c5 * x0;
        const T x12 = x11 / x6;
        const T x13 = -x12;
        const T x14 = z3 ? x13 : x10;
        const T x15 = z3 ? momentum_buffer : x9;
        next_square_avg[i] = kept(x4);
        next_momentum_buffer[i] = kept(x15);
        next_u[i] = kept(applied ? p + x14 : x14);
    }
}

// rmsprop_b5d2f476: centered, maximize
// numbers_0, as above
template <class T, bool applied> void loop_10(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* grad_avg_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_grad_avg = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * square_avg;
        const T x2 = x0 * x0;
        const T x3 = c1 * x2;
        const T x4 = x1 + x3;
        const T x5 = c0 * grad_avg;
        const T x6 = c1 * x0;
        const T x7 = x5 + x6;
        const T x8 = x7 * x7;
        const T x9 = x4 - x8;
        const T x10 = root(x9);
        const T x11 = x10 + c2;
        const T x12 = c3 * x0;
        const T x13 = x12 / x11;
        const T x14 = -x13;
        next_square_avg[i] = kept(x4);
        next_grad_avg[i] = kept(x7);
        next_u[i] = kept(applied ? p + x14 : x14);
    }
}

// rmsprop_a6572cbd: centered, maximize, momentum
// numbers_1, as above
template <class T, bool applied> void loop_11(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    const Array<T>* grad_avg_ = of<T>(a.before[2]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_grad_avg = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const bool z3 = a.c[3] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * square_avg;
        const T x2 = x0 * x0;
        const T x3 = c1 * x2;
        const T x4 = x1 + x3;
        const T x5 = c0 * grad_avg;
        const T x6 = c1 * x0;
        const T x7 = x5 + x6;
        const T x8 = x7 * x7;
        const T x9 = x4 - x8;
        const T x10 = root(x9);
        const T x11 = x10 + c2;
        const T x12 = c3 * momentum_buffer;
        const T x13 = x0 / x11;
        const T x14 = x12 + x13;
        const T x15 = c4 * x14;
        const T x16 = c5 * x0;
        const T x17 = x16 / x11;
        const T x18 = -x17;
        const T x19 = z3 ? x18 : x15;
        const T x20 = z3 ? momentum_buffer : x14;
        next_square_avg[i] = kept(x4);
        next_momentum_buffer[i] = kept(x20);
        next_grad_avg[i] = kept(x7);
        next_u[i] = kept(applied ? p + x19 : x19);
    }
}

// rmsprop_a6eb98b5: maximize, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_12(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * square_avg;
        const T x5 = x3 * x3;
        const T x6 = c2 * x5;
        const T x7 = x4 + x6;
        const T x8 = root(x7);
        const T x9 = x8 + c3;
        const T x10 = c4 * x3;
        const T x11 = x10 / x9;
        const T x12 = -x11;
        next_square_avg[i] = kept(x7);
        next_u[i] = kept(applied ? p + x12 : x12);
    }
}

// rmsprop_27293790: maximize, momentum, weight_decay
// numbers_3, as above
template <class T, bool applied> void loop_13(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const bool z0 = a.c[0] == 0;
    const bool z4 = a.c[4] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * square_avg;
        const T x5 = x3 * x3;
        const T x6 = c2 * x5;
        const T x7 = x4 + x6;
        const T x8 = root(x7);
        const T x9 = x8 + c3;
        const T x10 = c4 * momentum_buffer;
        const T x11 = x3 / x9;
        const T x12 = x10 + x11;
        const T x13 = c5 * x12;
        const T x14 = c6 * x3;
        const T x15 = x14 / x9;
        const T x16 = -x15;
        const T x17 = z4 ? x16 : x13;
        const T x18 = z4 ? momentum_buffer : x12;
        next_square_avg[i] = kept(x7);
        next_momentum_buffer[i] = kept(x18);
        next_u[i] = kept(applied ? p + x17 : x17);
    }
}

// rmsprop_23f360a5: centered, maximize, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_14(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* grad_avg_ = of<T>(a.before[1]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_grad_avg = of<T>(a.after[1]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * square_avg;
        const T x5 = x3 * x3;
        const T x6 = c2 * x5;
        const T x7 = x4 + x6;
        const T x8 = c1 * grad_avg;
        const T x9 = c2 * x3;
        const T x10 = x8 + x9;
        const T x11 = x10 * x10;
        const T x12 = x7 - x11;
        const T x13 = root(x12);
        const T x14 = x13 + c3;
        const T x15 = c4 * x3;
        const T x16 = x15 / x14;
        const T x17 = -x16;
        next_square_avg[i] = kept(x7);
        next_grad_avg[i] = kept(x10);
        next_u[i] = kept(applied ? p + x17 : x17);
    }
}

// rmsprop_71d16f87: centered, maximize, momentum, weight_decay
// numbers_3, as above
template <class T, bool applied> void loop_15(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* square_avg_ = of<T>(a.before[0]);
    const Array<T>* momentum_buffer_ = of<T>(a.before[1]);
    const Array<T>* grad_avg_ = of<T>(a.before[2]);
    Array<T>* next_square_avg = of<T>(a.after[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[1]);
    Array<T>* next_grad_avg = of<T>(a.after[2]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const T c6(a.c[6]);
    const bool z0 = a.c[0] == 0;
    const bool z4 = a.c[4] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T square_avg = Element<T>::of(square_avg_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T grad_avg = Element<T>::of(grad_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * square_avg;
        const T x5 = x3 * x3;
        const T x6 = c2 * x5;
        const T x7 = x4 + x6;
        const T x8 = c1 * grad_avg;
        const T x9 = c2 * x3;
        const T x10 = x8 + x9;
        const T x11 = x10 * x10;
        const T x12 = x7 - x11;
        const T x13 = root(x12);
        const T x14 = x13 + c3;
        const T x15 = c4 * momentum_buffer;
        const T x16 = x3 / x14;
        const T x17 = x15 + x16;
        const T x18 = c5 * x17;
        const T x19 = c6 * x3;
        const T x20 = x19 / x14;
        const T x21 = -x20;
        const T x22 = z4 ? x21 : x18;
        const T x23 = z4 ? momentum_buffer : x17;
        next_square_avg[i] = kept(x7);
        next_momentum_buffer[i] = kept(x23);
        next_grad_avg[i] = kept(x10);
        next_u[i] = kept(applied ? p + x22 : x22);
    }
}

}  // namespace

extern const Program TABLE(rmsprop)[] = {
    {"rmsprop_e6976831", 1, numbers_0, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"rmsprop_dfb21ead", 2, numbers_1, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"rmsprop_2a2ebf3f", 2, numbers_0, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"rmsprop_cb8f2e9e", 3, numbers_1, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {"rmsprop_6a797e2f", 1, numbers_2, {loop_4<float, false>, loop_4<double, false>, loop_4<BFloat16, false>, loop_4<Float16, false>}, {loop_4<float, true>, loop_4<double, true>}},
    {"rmsprop_10588ac8", 2, numbers_3, {loop_5<float, false>, loop_5<double, false>, loop_5<BFloat16, false>, loop_5<Float16, false>}, {loop_5<float, true>, loop_5<double, true>}},
    {"rmsprop_5e15810a", 2, numbers_2, {loop_6<float, false>, loop_6<double, false>, loop_6<BFloat16, false>, loop_6<Float16, false>}, {loop_6<float, true>, loop_6<double, true>}},
    {"rmsprop_9a68b350", 3, numbers_3, {loop_7<float, false>, loop_7<double, false>, loop_7<BFloat16, false>, loop_7<Float16, false>}, {loop_7<float, true>, loop_7<double, true>}},
    {"rmsprop_5d3c75a0", 1, numbers_0, {loop_8<float, false>, loop_8<double, false>, loop_8<BFloat16, false>, loop_8<Float16, false>}, {loop_8<float, true>, loop_8<double, true>}},
    {"rmsprop_c39e11da", 2, numbers_1, {loop_9<float, false>, loop_9<double, false>, loop_9<BFloat16, false>, loop_9<Float16, false>}, {loop_9<float, true>, loop_9<double, true>}},
    {"rmsprop_b5d2f476", 2, numbers_0, {loop_10<float, false>, loop_10<double, false>, loop_10<BFloat16, false>, loop_10<Float16, false>}, {loop_10<float, true>, loop_10<double, true>}},
    {"rmsprop_a6572cbd", 3, numbers_1, {loop_11<float, false>, loop_11<double, false>, loop_11<BFloat16, false>, loop_11<Float16, false>}, {loop_11<float, true>, loop_11<double, true>}},
    {"rmsprop_a6eb98b5", 1, numbers_2, {loop_12<float, false>, loop_12<double, false>, loop_12<BFloat16, false>, loop_12<Float16, false>}, {loop_12<float, true>, loop_12<double, true>}},
    {"rmsprop_27293790", 2, numbers_3, {loop_13<float, false>, loop_13<double, false>, loop_13<BFloat16, false>, loop_13<Float16, false>}, {loop_13<float, true>, loop_13<double, true>}},
    {"rmsprop_23f360a5", 2, numbers_2, {loop_14<float, false>, loop_14<double, false>, loop_14<BFloat16, false>, loop_14<Float16, false>}, {loop_14<float, true>, loop_14<double, true>}},
    {"rmsprop_71d16f87", 3, numbers_3, {loop_15<float, false>, loop_15<double, false>, loop_15<BFloat16, false>, loop_15<Float16, false>}, {loop_15<float, true>, loop_15<double, true>}},
    {},
};
