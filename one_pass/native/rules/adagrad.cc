// Written by `python -m tools.one_pass`, of jaxopt_impl/adagrad.py; not by hand.
#include "../rounded.h"

namespace {

// adagrad_b9191967: nothing set
void numbers_0(const double* h, double* c) {
    c[0] = h[3];
    c[1] = h[0];
}
template <class T, bool applied> void loop_0(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = g * g;
        const T x1 = sum + x0;
        const T x2 = root(x1);
        const T x3 = x2 + c0;
        const T x4 = c1 * g;
        const T x5 = x4 / x3;
        const T x6 = -x5;
        next_sum[i] = kept(x1);
        next_u[i] = kept(applied ? p + x6 : x6);
    }
}

// adagrad_bb5b0874: eps_in_sqrt
// numbers_0, as above
template <class T, bool applied> void loop_1(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = g * g;
        const T x1 = sum + x0;
        const T x2 = x1 + c0;
        const T x3 = root(x2);
        const T x4 = c1 * g;
        const T x5 = x4 / x3;
        const T x6 = -x5;
        next_sum[i] = kept(x1);
        next_u[i] = kept(applied ? p + x6 : x6);
    }
}

// adagrad_ac293321: weight_decay
void numbers_1(const double* h, double* c) {
    c[0] = h[2];
    c[1] = h[3];
    c[2] = h[0];
}
template <class T, bool applied> void loop_2(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = x2 * x2;
        const T x4 = sum + x3;
        const T x5 = root(x4);
        const T x6 = x5 + c1;
        const T x7 = c2 * x2;
        const T x8 = x7 / x6;
        const T x9 = -x8;
        next_sum[i] = kept(x4);
        next_u[i] = kept(applied ? p + x9 : x9);
    }
}

// adagrad_e61ebdee: eps_in_sqrt, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_3(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = x2 * x2;
        const T x4 = sum + x3;
        const T x5 = x4 + c1;
        const T x6 = root(x5);
        const T x7 = c2 * x2;
        const T x8 = x7 / x6;
        const T x9 = -x8;
        next_sum[i] = kept(x4);
        next_u[i] = kept(applied ? p + x9 : x9);
    }
}

// adagrad_61e1c8db: maximize
// numbers_0, as above
template <class T, bool applied> void loop_4(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = -g;
        const T x1 = x0 * x0;
        const T x2 = sum + x1;
        const T x3 = root(x2);
        const T x4 = x3 + c0;
        const T x5 = c1 * x0;
        const T x6 = x5 / x4;
        const T x7 = -x6;
        next_sum[i] = kept(x2);
        next_u[i] = kept(applied ? p + x7 : x7);
    }
}

// adagrad_4fdb4eae: eps_in_sqrt, maximize
// numbers_0, as above
template <class T, bool applied> void loop_5(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = -g;
        const T x1 = x0 * x0;
        const T x2 = sum + x1;
        const T x3 = x2 + c0;
        const T x4 = root(x3);
        const T x5 = c1 * x0;
        const T x6 = x5 / x4;
        const T x7 = -x6;
        next_sum[i] = kept(x2);
        next_u[i] = kept(applied ? p + x7 : x7);
    }
}

// adagrad_de34b57f: maximize, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_6(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = x3 * x3;
        const T x5 = sum + x4;
        const T x6 = root(x5);
        const T x7 = x6 + c1;
        const T x8 = c2 * x3;
        const T x9 = x8 / x7;
        const T x10 = -x9;
        next_sum[i] = kept(x5);
        next_u[i] = kept(applied ? p + x10 : x10);
    }
}

// adagrad_1f143571: eps_in_sqrt, maximize, weight_decay
// numbers_1, as above
template <class T, bool applied> void loop_7(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* sum_ = of<T>(a.before[0]);
    Array<T>* next_sum = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T sum = Element<T>::of(sum_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = x3 * x3;
        const T x5 = sum + x4;
        const T x6 = x5 + c1;
        const T x7 = root(x6);
        const T x8 = c2 * x3;
        const T x9 = x8 / x7;
        const T x10 = -x9;
        next_sum[i] = kept(x5);
        next_u[i] = kept(applied ? p + x10 : x10);
    }
}

// adagrad_e05fedaa: lr_decay
void numbers_2(const double* h, double* c) {
    c[0] = h[3];
    c[1] = (h[0] / (1.0 + ((h[8] - 1.0) * h[1])));
}
// loop_0, as above

// adagrad_31669f14: eps_in_sqrt, lr_decay
// numbers_2, as above
// loop_1, as above

// adagrad_4055436a: lr_decay, weight_decay
void numbers_3(const double* h, double* c) {
    c[0] = h[2];
    c[1] = h[3];
    c[2] = (h[0] / (1.0 + ((h[8] - 1.0) * h[1])));
}
// loop_2, as above

// adagrad_3b8b9994: eps_in_sqrt, lr_decay, weight_decay
// numbers_3, as above
// loop_3, as above

// adagrad_ef692008: lr_decay, maximize
// numbers_2, as above
// loop_4, as above

// adagrad_2be88c26: eps_in_sqrt, lr_decay, maximize
// numbers_2, as above
// loop_5, as above

// adagrad_6cce5ac5: lr_decay, maximize, weight_decay
// numbers_3, as above
// loop_6, as above

// adagrad_4d28846a: eps_in_sqrt, lr_decay, maximize, weight_decay
// numbers_3, as above
// loop_7, as above

}  // namespace

extern const Program TABLE(adagrad)[] = {
    {"adagrad_b9191967", 1, numbers_0, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"adagrad_bb5b0874", 1, numbers_0, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"adagrad_ac293321", 1, numbers_1, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"adagrad_e61ebdee", 1, numbers_1, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {"adagrad_61e1c8db", 1, numbers_0, {loop_4<float, false>, loop_4<double, false>, loop_4<BFloat16, false>, loop_4<Float16, false>}, {loop_4<float, true>, loop_4<double, true>}},
    {"adagrad_4fdb4eae", 1, numbers_0, {loop_5<float, false>, loop_5<double, false>, loop_5<BFloat16, false>, loop_5<Float16, false>}, {loop_5<float, true>, loop_5<double, true>}},
    {"adagrad_de34b57f", 1, numbers_1, {loop_6<float, false>, loop_6<double, false>, loop_6<BFloat16, false>, loop_6<Float16, false>}, {loop_6<float, true>, loop_6<double, true>}},
    {"adagrad_1f143571", 1, numbers_1, {loop_7<float, false>, loop_7<double, false>, loop_7<BFloat16, false>, loop_7<Float16, false>}, {loop_7<float, true>, loop_7<double, true>}},
    {"adagrad_e05fedaa", 1, numbers_2, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"adagrad_31669f14", 1, numbers_2, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"adagrad_4055436a", 1, numbers_3, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"adagrad_3b8b9994", 1, numbers_3, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {"adagrad_ef692008", 1, numbers_2, {loop_4<float, false>, loop_4<double, false>, loop_4<BFloat16, false>, loop_4<Float16, false>}, {loop_4<float, true>, loop_4<double, true>}},
    {"adagrad_2be88c26", 1, numbers_2, {loop_5<float, false>, loop_5<double, false>, loop_5<BFloat16, false>, loop_5<Float16, false>}, {loop_5<float, true>, loop_5<double, true>}},
    {"adagrad_6cce5ac5", 1, numbers_3, {loop_6<float, false>, loop_6<double, false>, loop_6<BFloat16, false>, loop_6<Float16, false>}, {loop_6<float, true>, loop_6<double, true>}},
    {"adagrad_4d28846a", 1, numbers_3, {loop_7<float, false>, loop_7<double, false>, loop_7<BFloat16, false>, loop_7<Float16, false>}, {loop_7<float, true>, loop_7<double, true>}},
    {},
};
