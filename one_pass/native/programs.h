// What a program takes, and the tables of them: one for each kernel and instruction set.
#pragma once
#include <cstdint>

constexpr int MOST_FIELDS = 4;   // of a state
constexpr int MOST_NUMBERS = 32;  // hyper-parameters, and what is computed of them

// So many elements, all in the type that is computed in.
struct Operands {
    int64_t n;
    const void *g, *p;
    const void* before[MOST_FIELDS];
    void* after[MOST_FIELDS];
    void* u;  // the update, or the next parameters
    const double* c;
};

struct Program {
    const char* name;
    int fields;
    void (*numbers)(const double* h, double* c);  // once a step, in float64
    void (*loops[4])(const Operands&);            // float, double, bfloat16, float16
    void (*applied[2])(const Operands&);          // float, double: the next parameters in the place of the update
};
