// Written by `python -m tools.one_pass`, of jaxopt_impl/sgd.py; not by hand.
#include "../rounded.h"

namespace {

// sgd_51835843: nothing set
void numbers_0(const double* h, double* c) {
    c[0] = -h[0];
}
template <class T, bool applied> void loop_0(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T x0 = c0 * g;
        next_u[i] = kept(applied ? p + x0 : x0);
    }
}

// sgd_406eb54b: momentum
void numbers_1(const double* h, double* c) {
    c[0] = h[1];
    c[1] = h[7];
    c[2] = -h[0];
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
        const T x0 = c0 * momentum_buffer;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = z0 ? g : x2;
        const T x4 = c2 * x3;
        const T x5 = z0 ? momentum_buffer : x2;
        next_momentum_buffer[i] = kept(x5);
        next_u[i] = kept(applied ? p + x4 : x4);
    }
}

// sgd_bd54f687: momentum, nesterov
// numbers_1, as above
template <class T, bool applied> void loop_2(const Operands& a) {
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
        const T x0 = c0 * momentum_buffer;
        const T x1 = c1 * g;
        const T x2 = x0 + x1;
        const T x3 = c0 * x2;
        const T x4 = g + x3;
        const T x5 = z0 ? g : x4;
        const T x6 = c2 * x5;
        const T x7 = z0 ? momentum_buffer : x2;
        next_momentum_buffer[i] = kept(x7);
        next_u[i] = kept(applied ? p + x6 : x6);
    }
}

// sgd_286f85b1: weight_decay
void numbers_2(const double* h, double* c) {
    c[0] = h[3];
    c[1] = -h[0];
}
template <class T, bool applied> void loop_3(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T x0 = c0 * p;
        const T x1 = g + x0;
        const T x2 = z0 ? g : x1;
        const T x3 = c1 * x2;
        next_u[i] = kept(applied ? p + x3 : x3);
    }
}

// sgd_939357e5: momentum, weight_decay
void numbers_3(const double* h, double* c) {
    c[0] = h[3];
    c[1] = h[1];
    c[2] = h[7];
    c[3] = -h[0];
}
template <class T, bool applied> void loop_4(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const bool z0 = a.c[0] == 0;
    const bool z1 = a.c[1] == 0;
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
        const T x5 = x3 + x4;
        const T x6 = z1 ? x2 : x5;
        const T x7 = c3 * x6;
        const T x8 = z1 ? momentum_buffer : x5;
        next_momentum_buffer[i] = kept(x8);
        next_u[i] = kept(applied ? p + x7 : x7);
    }
}

// sgd_95fae4c6: momentum, nesterov, weight_decay
// numbers_3, as above
template <class T, bool applied> void loop_5(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const bool z0 = a.c[0] == 0;
    const bool z1 = a.c[1] == 0;
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
        const T x5 = x3 + x4;
        const T x6 = c1 * x5;
        const T x7 = x2 + x6;
        const T x8 = z1 ? x2 : x7;
        const T x9 = c3 * x8;
        const T x10 = z1 ? momentum_buffer : x5;
        next_momentum_buffer[i] = kept(x10);
        next_u[i] = kept(applied ? p + x9 : x9);
    }
}

// sgd_90230db9: maximize
// numbers_0, as above
template <class T, bool applied> void loop_6(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T x0 = -g;
        const T x1 = c0 * x0;
        next_u[i] = kept(applied ? p + x1 : x1);
    }
}

// sgd_2ac2eddf: maximize, momentum
// numbers_1, as above
template <class T, bool applied> void loop_7(const Operands& a) {
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
        const T x1 = c0 * momentum_buffer;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = z0 ? x0 : x3;
        const T x5 = c2 * x4;
        const T x6 = z0 ? momentum_buffer : x3;
        next_momentum_buffer[i] = kept(x6);
        next_u[i] = kept(applied ? p + x5 : x5);
    }
}

// sgd_e4547d84: maximize, momentum, nesterov
// numbers_1, as above
template <class T, bool applied> void loop_8(const Operands& a) {
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
        const T x1 = c0 * momentum_buffer;
        const T x2 = c1 * x0;
        const T x3 = x1 + x2;
        const T x4 = c0 * x3;
        const T x5 = x0 + x4;
        const T x6 = z0 ? x0 : x5;
        const T x7 = c2 * x6;
        const T x8 = z0 ? momentum_buffer : x3;
        next_momentum_buffer[i] = kept(x8);
        next_u[i] = kept(applied ? p + x7 : x7);
    }
}

// sgd_ffc69c1b: maximize, weight_decay
// numbers_2, as above
template <class T, bool applied> void loop_9(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const bool z0 = a.c[0] == 0;
    EACH_ALONE
    for (int64_t i = 0; i < a.n; i++) {
        const T g = Element<T>::of(g_[i]);
        const T p = Element<T>::of(p_[i]);
        const T x0 = -g;
        const T x1 = c0 * p;
        const T x2 = x0 + x1;
        const T x3 = z0 ? x0 : x2;
        const T x4 = c1 * x3;
        next_u[i] = kept(applied ? p + x4 : x4);
    }
}

// sgd_d7b3105d: maximize, momentum, weight_decay
// numbers_3, as above
template <class T, bool applied> void loop_10(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const bool z0 = a.c[0] == 0;
    const bool z1 = a.c[1] == 0;
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
        const T x6 = x4 + x5;
        const T x7 = z1 ? x3 : x6;
        const T x8 = c3 * x7;
        const T x9 = z1 ? momentum_buffer : x6;
        next_momentum_buffer[i] = kept(x9);
        next_u[i] = kept(applied ? p + x8 : x8);
    }
}

// sgd_e0f16283: maximize, momentum, nesterov, weight_decay
// numbers_3, as above
template <class T, bool applied> void loop_11(const Operands& a) {
    const Array<T>* g_ = of<T>(a.g);
    const Array<T>* p_ = of<T>(a.p);
    const Array<T>* momentum_buffer_ = of<T>(a.before[0]);
    Array<T>* next_momentum_buffer = of<T>(a.after[0]);
    Array<T>* next_u = of<T>(a.u);
    const T c0(a.c[0]);
    const T c1(a.c[1]);
    const T c2(a.c[2]);
    const T c3(a.c[3]);
    const bool z0 = a.c[0] == 0;
    const bool z1 = a.c[1] == 0;
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
        const T x6 = x4 + x5;
        const T x7 = c1 * x6;
        const T x8 = x3 + x7;
        const T x9 = z1 ? x3 : x8;
        const T x10 = c3 * x9;
        const T x11 = z1 ? momentum_buffer : x6;
        next_momentum_buffer[i] = kept(x11);
        next_u[i] = kept(applied ? p + x10 : x10);
    }
}

// sgd_51835843: dampening
// numbers_0, as above
// loop_0, as above

// sgd_9b9ef04f: dampening, momentum
void numbers_4(const double* h, double* c) {
    c[0] = h[1];
    c[1] = ((h[8] == 1) ? 1.0 : (1.0 - h[2]));
    c[2] = -h[0];
}
// loop_1, as above

// sgd_79b3f091: dampening, momentum, nesterov
// numbers_4, as above
// loop_2, as above

// sgd_286f85b1: dampening, weight_decay
// numbers_2, as above
// loop_3, as above

// sgd_49b030f9: dampening, momentum, weight_decay
void numbers_5(const double* h, double* c) {
    c[0] = h[3];
    c[1] = h[1];
    c[2] = ((h[8] == 1) ? 1.0 : (1.0 - h[2]));
    c[3] = -h[0];
}
// loop_4, as above

// sgd_7de09e8d: dampening, momentum, nesterov, weight_decay
// numbers_5, as above
// loop_5, as above

// sgd_90230db9: dampening, maximize
// numbers_0, as above
// loop_6, as above

// sgd_c44110f4: dampening, maximize, momentum
// numbers_4, as above
// loop_7, as above

// sgd_ca2d74bc: dampening, maximize, momentum, nesterov
// numbers_4, as above
// loop_8, as above

// sgd_ffc69c1b: dampening, maximize, weight_decay
// numbers_2, as above
// loop_9, as above

// sgd_04ea969a: dampening, maximize, momentum, weight_decay
// numbers_5, as above
// loop_10, as above

// sgd_39a51f3a: dampening, maximize, momentum, nesterov, weight_decay
// numbers_5, as above
// loop_11, as above

}  // namespace

extern const Program TABLE(sgd)[] = {
    {"sgd_51835843", 0, numbers_0, {loop_0<float, false>, loop_0<double, false>, loop_0<BFloat16, false>, loop_0<Float16, false>}, {loop_0<float, true>, loop_0<double, true>}},
    {"sgd_406eb54b", 1, numbers_1, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"sgd_bd54f687", 1, numbers_1, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"sgd_286f85b1", 0, numbers_2, {loop_3<float, false>, loop_3<double, false>, loop_3<BFloat16, false>, loop_3<Float16, false>}, {loop_3<float, true>, loop_3<double, true>}},
    {"sgd_939357e5", 1, numbers_3, {loop_4<float, false>, loop_4<double, false>, loop_4<BFloat16, false>, loop_4<Float16, false>}, {loop_4<float, true>, loop_4<double, true>}},
    {"sgd_95fae4c6", 1, numbers_3, {loop_5<float, false>, loop_5<double, false>, loop_5<BFloat16, false>, loop_5<Float16, false>}, {loop_5<float, true>, loop_5<double, true>}},
    {"sgd_90230db9", 0, numbers_0, {loop_6<float, false>, loop_6<double, false>, loop_6<BFloat16, false>, loop_6<Float16, false>}, {loop_6<float, true>, loop_6<double, true>}},
    {"sgd_2ac2eddf", 1, numbers_1, {loop_7<float, false>, loop_7<double, false>, loop_7<BFloat16, false>, loop_7<Float16, false>}, {loop_7<float, true>, loop_7<double, true>}},
    {"sgd_e4547d84", 1, numbers_1, {loop_8<float, false>, loop_8<double, false>, loop_8<BFloat16, false>, loop_8<Float16, false>}, {loop_8<float, true>, loop_8<double, true>}},
    {"sgd_ffc69c1b", 0, numbers_2, {loop_9<float, false>, loop_9<double, false>, loop_9<BFloat16, false>, loop_9<Float16, false>}, {loop_9<float, true>, loop_9<double, true>}},
    {"sgd_d7b3105d", 1, numbers_3, {loop_10<float, false>, loop_10<double, false>, loop_10<BFloat16, false>, loop_10<Float16, false>}, {loop_10<float, true>, loop_10<double, true>}},
    {"sgd_e0f16283", 1, numbers_3, {loop_11<float, false>, loop_11<double, false>, loop_11<BFloat16, false>, loop_11<Float16, false>}, {loop_11<float, true>, loop_11<double, true>}},
    {"sgd_9b9ef04f", 1, numbers_4, {loop_1<float, false>, loop_1<double, false>, loop_1<BFloat16, false>, loop_1<Float16, false>}, {loop_1<float, true>, loop_1<double, true>}},
    {"sgd_79b3f091", 1, numbers_4, {loop_2<float, false>, loop_2<double, false>, loop_2<BFloat16, false>, loop_2<Float16, false>}, {loop_2<float, true>, loop_2<double, true>}},
    {"sgd_49b030f9", 1, numbers_5, {loop_4<float, false>, loop_4<double, false>, loop_4<BFloat16, false>, loop_4<Float16, false>}, {loop_4<float, true>, loop_4<double, true>}},
    {"sgd_7de09e8d", 1, numbers_5, {loop_5<float, false>, loop_5<double, false>, loop_5<BFloat16, false>, loop_5<Float16, false>}, {loop_5<float, true>, loop_5<double, true>}},
    {"sgd_c44110f4", 1, numbers_4, {loop_7<float, false>, loop_7<double, false>, loop_7<BFloat16, false>, loop_7<Float16, false>}, {loop_7<float, true>, loop_7<double, true>}},
    {"sgd_ca2d74bc", 1, numbers_4, {loop_8<float, false>, loop_8<double, false>, loop_8<BFloat16, false>, loop_8<Float16, false>}, {loop_8<float, true>, loop_8<double, true>}},
    {"sgd_04ea969a", 1, numbers_5, {loop_10<float, false>, loop_10<double, false>, loop_10<BFloat16, false>, loop_10<Float16, false>}, {loop_10<float, true>, loop_10<double, true>}},
    {"sgd_39a51f3a", 1, numbers_5, {loop_11<float, false>, loop_11<double, false>, loop_11<BFloat16, false>, loop_11<Float16, false>}, {loop_11<float, true>, loop_11<double, true>}},
    {},
};
