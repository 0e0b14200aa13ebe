// Written by `python -m tools.one_pass`, of jaxopt_impl/momentum.py; not by hand.
#include "../rounded.h"

namespace {

// momentum_4f830fac: nothing set
void numbers_0(const double* h, double* c) {
    c[0] = h[1];
    c[1] = h[0];
}
template <class T, bool applied> void loop_0(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = c0 * momentum_buffer;
        const T x1 = c1 * g;
        const T x2 = x0 - x1;
        next_momentum_buffer[i] = kept(x2);
        next_u[i] = kept(applied ? p + x2 : x2);
    }
}

// momentum_6e859ab7: weight_decay
void numbers_1(const double* h, double* c) {
    c[0] = h[2];
    c[1] = h[1];
    c[2] = h[0];
}
template <class T, bool applied> void loop_1(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * momentum_buffer;
        const T x4 = c2 * x2;
        const T x5 = x3 - x4;
        next_momentum_buffer[i] = kept(x5);
        next_u[i] = kept(applied ? p + x5 : x5);
    }
}

// momentum_21f8b266: maximize
// numbers_0, as above
template <class T, bool applied> void loop_2(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = -g;
        const T x1 = c0 * momentum_buffer;
        const T x2 = c1 * x0;
        const T x3 = x1 - x2;
        next_momentum_buffer[i] = kept(x3);
        next_u[i] = kept(applied ? p + x3 : x3);
    }
}

// momentum_7db449af: maximize, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_3(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T momentum_buffer = Element<T>::of(momentum_buffer_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * momentum_buffer;
        const T x5 = c2 * x3;
        const T x6 = x4 - x5;
        next_momentum_buffer[i] = kept(x6);
        next_u[i] = kept(applied ? p + x6 : x6);
    }
}

}  // namespace

extern const Program TABLE(momentum)[] = {
    {"momentum_4f830fac", 1, numbers_0, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"momentum_6e859ab7", 1, numbers_1, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"momentum_21f8b266", 1, numbers_0, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"momentum_7db449af", 1, numbers_1, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {},
};
