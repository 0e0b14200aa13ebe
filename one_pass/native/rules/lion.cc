// Written by `python -m tools.one_pass`, of jaxopt_impl/lion.py; not by hand.
#include "../rounded.h"

namespace {

// lion_68152cfe: nothing set
void numbers_0(const double* h, double* c) {
    c[0] = h[1];
    c[1] = (1.0 - h[1]);
    c[2] = h[2];
    c[3] = (1.0 - h[2]);
    c[4] = -h[0];
}
template <class T, bool applied> void loop_0(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T x0 = c0 * exp_avg;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = sign(x2);
        const T x4 = c2 * exp_avg;
        const T x5 = c3 * g;
        const T x6 = x4 + x5;
        const T x7 = c4 * x3;
        next_exp_avg[i] = kept(x6);
        next_u[i] = kept(applied ? p + x7 : x7);
    }
}

// lion_7760d8e2: weight_decay
void numbers_1(const double* h, double* c) {
    c[0] = h[1];
    c[1] = (1.0 - h[1]);
    c[2] = h[3];
    c[3] = h[2];
    c[4] = (1.0 - h[2]);
    c[5] = -h[0];
}
template <class T, bool applied> void loop_1(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const bool z2 = a.c[2] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T x0 = c0 * exp_avg;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = sign(x2);
        const T x4 = c2 * p;
        const T x5 = x3 + x4;
        const T x6 = z2 ? x3 : x5;
        const T x7 = c3 * exp_avg;
        const T x8 = c4 * g;
        const T x9 = x7 + x8;
        const T x10 = c5 * x6;
        next_exp_avg[i] = kept(x9);
        next_u[i] = kept(applied ? p + x10 : x10);
    }
}

// lion_c9c70cf9: maximize
// numbers_0, as above
template <class T, bool applied> void loop_2(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * exp_avg;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = sign(x3);
        const T x5 = c2 * exp_avg;
        const T x6 = c3 * x0;
        const T x7 = x5 + x6;
        const T x8 = c4 * x4;
        next_exp_avg[i] = kept(x7);
        next_u[i] = kept(applied ? p + x8 : x8);
    }
}

// lion_093ac13a: maximize, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_3(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* exp_avg_ = of<T>(a.before[0]);
    Array<T>* next_exp_avg = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const T c4(a.c[4]);
    const T c5(a.c[5]);
    const bool z2 = a.c[2] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T exp_avg = Element<T>::of(exp_avg_[i]);
        const T x0 = -g;
        const T x1 = c0 * exp_avg;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = sign(x3);
        const T x5 = c2 * p;
        const T x6 = x4 + x5;
        const T x7 = z2 ? x4 : x6;
        const T x8 = c3 * exp_avg;
        const T x9 = c4 * x0;
        const T x10 = x8 + x9;
        const T x11 = c5 * x7;
        next_exp_avg[i] = kept(x10);
        next_u[i] = kept(applied ? p + x11 : x11);
    }
}

}  // namespace

extern const Program TABLE(lion)[] = {
    {"lion_68152cfe", 1, numbers_0, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"lion_7760d8e2", 1, numbers_1, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"lion_c9c70cf9", 1, numbers_0, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"lion_093ac13a", 1, numbers_1, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {},
};
