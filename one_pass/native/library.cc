// A step of many leaves in one pass: blocks of them are brought to the type that is computed in, go through a program's loop, and are
// brought back. Called by XLA as an FFI handler, and by PyTorch through ctypes.
#include <dlfcn.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#define INSTRUCTIONS here
#include "rounded.h"
#include "xla/ffi/api/ffi.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define EXPORTED __attribute__((visibility("default")))
#define EACH_KERNEL(DO) DO(adagrad) DO(adam) DO(lion) DO(momentum) DO(rmsprop) DO(sgd)
#define DECLARED_PLAIN(kernel) extern const Program kernel##_plain[];
#define DECLARED_AVX2(kernel) extern const Program kernel##_avx2[];
#define LISTED_PLAIN(kernel) kernel##_plain,
#define LISTED_AVX2(kernel) kernel##_avx2,
EACH_KERNEL(DECLARED_PLAIN)
#if defined(__x86_64__)
EACH_KERNEL(DECLARED_AVX2)
#endif

namespace {

constexpr const Program* PLAIN[] = {EACH_KERNEL(LISTED_PLAIN)};
#if defined(__x86_64__)
constexpr const Program* AVX2[] = {EACH_KERNEL(LISTED_AVX2)};
#endif

bool has_avx2() {
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2");
#else
    return false;
#endif
}

const Program* program(std::string_view name) {
#if defined(__x86_64__)
    static const bool wide = has_avx2();
    const auto& tables = wide ? AVX2 : PLAIN;
#else
    const auto& tables = PLAIN;
#endif
    for (const Program* table : tables)
        for (const Program* row = table; row->name; row++)
            if (name == row->name) return row;
    return nullptr;
}

// Whether subnormals are flushed to zero: a word that the processor has for each thread. It is put back at the end.
class Subnormals {
   public:
    explicit Subnormals(bool flushed) : before_(read()) { write(flushed ? before_ | FLUSHED : before_ & ~FLUSHED); }
    ~Subnormals() { write(before_); }
    static bool flushed() { return (read() & FLUSHED) != 0; }

   private:
#if defined(__x86_64__)
    static constexpr uint64_t FLUSHED = 0x8040;  // of operands and of results
    static uint64_t read() { return _mm_getcsr(); }
    static void write(uint64_t word) { _mm_setcsr(uint32_t(word)); }
#elif defined(__aarch64__)
    static constexpr uint64_t FLUSHED = 1ull << 24;
    static uint64_t read() { uint64_t word; __asm__ volatile("mrs %0, fpcr" : "=r"(word)); return word; }
    static void write(uint64_t word) { __asm__ volatile("msr fpcr, %0" : : "r"(word)); }
#else
    static constexpr uint64_t FLUSHED = 0;
    static uint64_t read() { return 0; }
    static void write(uint64_t) {}
#endif
    const uint64_t before_;
};

enum Kind : int64_t { FLOAT, DOUBLE, BFLOAT16, FLOAT16 };
constexpr int64_t SIZES[] = {4, 8, 2, 2};

// float16 as bits, from a float that it holds, and back.
uint16_t float16_bits(float x) {
    const uint32_t b = bits(x), sign = b >> 16 & 0x8000, size = b & 0x7fffffff;
    const uint32_t small = bits(number(size) + 0.5f) - bits(0.5f);
    const uint32_t normal = (size - 0x38000000) >> 13;
    const uint32_t large = size > 0x7f800000 ? 0x7e00 | (size >> 13 & 0x3ff) : size == 0x7f800000 ? 0x7c00 : normal;
    return uint16_t(sign | (size < 0x38800000 ? small : large));
}
float of_float16_bits(uint16_t h) {
    const uint32_t sign = uint32_t(h & 0x8000) << 16, size = h & 0x7fff;
    const uint32_t small = bits(float(int32_t(size)) * 0x1p-24f);
    const uint32_t normal = (size << 13) + (size >= 0x7c00 ? 0x70000000 : 0x38000000);
    return number(sign | (size < 0x400 ? small : normal));
}

// To the precision of a bfloat16, so that float on the way to it rounds nothing: 45 bits are dropped, a tie goes to even.
double narrowed(double x) {
    const uint64_t b = bits(x);
    const uint64_t rounded = (b + ((1ull << 44) - 1) + (b >> 45 & 1)) & ~((1ull << 45) - 1);
    return x - x == 0 ? number(rounded) : x;
}

// A block in T of a stored array.
template <class T> void load(const void* from, Kind kind, int64_t n, T* to) {
    switch (kind) {
        case FLOAT: { auto x = static_cast<const float*>(from); for (int64_t i = 0; i < n; i++) to[i] = T(x[i]); break; }
        case DOUBLE: { auto x = static_cast<const double*>(from); for (int64_t i = 0; i < n; i++) to[i] = T(x[i]); break; }
        case BFLOAT16: { auto x = static_cast<const uint16_t*>(from); for (int64_t i = 0; i < n; i++) to[i] = T(number(uint32_t(x[i]) << 16)); break; }
        case FLOAT16: { auto x = static_cast<const uint16_t*>(from); for (int64_t i = 0; i < n; i++) to[i] = T(of_float16_bits(x[i])); break; }
    }
}

inline float before_bfloat16(float x) { return x; }
inline float before_bfloat16(double x) { return float(narrowed(x)); }

// A block of T, rounded once to the kind of a stored array.
template <class T> void store(const T* from, Kind kind, int64_t n, void* to) {
    switch (kind) {
        case FLOAT: { auto x = static_cast<float*>(to); for (int64_t i = 0; i < n; i++) x[i] = float(from[i]); break; }
        case DOUBLE: { auto x = static_cast<double*>(to); for (int64_t i = 0; i < n; i++) x[i] = double(from[i]); break; }
        case BFLOAT16: { auto x = static_cast<uint16_t*>(to); for (int64_t i = 0; i < n; i++) x[i] = uint16_t(bits(to_bfloat16(before_bfloat16(from[i]))) >> 16); break; }
        case FLOAT16: { auto x = static_cast<uint16_t*>(to); for (int64_t i = 0; i < n; i++) x[i] = float16_bits(to_float16(float(from[i]))); break; }
    }
}

struct Leaf {
    int64_t n;
    const void *g, *p;  // p is null where neither the rule nor the call needs it
    void* out;          // the update, or the next parameters
    const void* before[MOST_FIELDS];
    void* after[MOST_FIELDS];
};

// A step of leaves that are alike in dtypes.
struct Step {
    const Program* program;
    Kind computed, of_p, of_g, of_field[MOST_FIELDS];
    bool applied, flushed;
    std::vector<Leaf> leaves;
    double numbers[MOST_NUMBERS];

    int64_t elements() const {
        int64_t sum = 0;
        for (const Leaf& leaf : leaves) sum += leaf.n;
        return sum;
    }

    void prepare(const double* h) {
        Subnormals as_told(flushed);
        program->numbers(h, numbers);
    }

    // Of all elements, one leaf behind the other, those from `from` to `to`.
    void run(int64_t from, int64_t to) const {
        Subnormals as_told(flushed);
        int64_t at = 0;
        for (const Leaf& leaf : leaves) {
            const int64_t first = std::max(from - at, int64_t(0)), last = std::min(to - at, leaf.n);
            if (first < last) computed == DOUBLE ? run<double>(leaf, first, last) : run<float>(leaf, first, last);
            at += leaf.n;
            if (at >= to) break;
        }
    }

   private:
    static constexpr int64_t BLOCK = 1024;

    template <class T> void run(const Leaf& leaf, int64_t first, int64_t last) const {
        const Kind own = computed == DOUBLE ? DOUBLE : FLOAT;  // the kind of T
        const bool alike = computed == own && of_p == own && of_g == own && std::all_of(of_field, of_field + program->fields, [&](Kind kind) { return kind == own; });
        alike ? run_in_place<T>(leaf, first, last) : run_in_blocks<T>(leaf, own, first, last);
    }

    // Where everything is stored as it is computed, the loop goes over memory itself.
    template <class T> void run_in_place(const Leaf& leaf, int64_t first, int64_t last) const {
        Operands a{};
        a.n = last - first;
        a.c = numbers;
        a.g = static_cast<const T*>(leaf.g) + first;
        a.p = leaf.p ? static_cast<const T*>(leaf.p) + first : a.g;
        a.u = static_cast<T*>(leaf.out) + first;
        for (int f = 0; f < program->fields; f++) {
            a.before[f] = static_cast<const T*>(leaf.before[f]) + first;
            a.after[f] = static_cast<T*>(leaf.after[f]) + first;
        }
        applied ? program->applied[computed](a) : program->loops[computed](a);
    }

    template <class T> void run_in_blocks(const Leaf& leaf, Kind own, int64_t first, int64_t last) const {
        alignas(64) T g[BLOCK], p[BLOCK], u[BLOCK], fields[MOST_FIELDS][BLOCK];
        for (int64_t i = first; i < last; i += BLOCK) {
            Operands a{};
            a.n = std::min(BLOCK, last - i);
            a.c = numbers;
            auto place = [&](const void* array, Kind kind) { return static_cast<const char*>(array) + i * SIZES[kind]; };
            auto in = [&](const void* array, Kind kind, T* block) -> const void* {
                if (kind == own) return place(array, kind);
                load(place(array, kind), kind, a.n, block);
                return block;
            };
            auto out = [&](void* array, Kind kind, T* block) -> void* { return kind == own ? static_cast<void*>(const_cast<char*>(place(array, kind))) : block; };
            a.g = in(leaf.g, of_g, g);
            a.p = leaf.p ? in(leaf.p, of_p, p) : a.g;  // where it is null the loop does not use it
            for (int f = 0; f < program->fields; f++) {
                a.before[f] = in(leaf.before[f], of_field[f], fields[f]);
                a.after[f] = out(leaf.after[f], of_field[f], fields[f]);
            }
            const bool direct = !applied && of_p == own;
            a.u = direct ? static_cast<void*>(const_cast<char*>(place(leaf.out, of_p))) : u;
            program->loops[computed](a);
            for (int f = 0; f < program->fields; f++)
                if (a.after[f] == fields[f]) store(fields[f], of_field[f], a.n, const_cast<char*>(place(leaf.after[f], of_field[f])));
            if (applied) add(static_cast<const T*>(a.p), u, a.n);
            if (!direct) store(u, of_p, a.n, const_cast<char*>(place(leaf.out, of_p)));
        }
    }

    // The next parameters in the place of the update, which is rounded to their type first.
    template <class T> void add(const T* p, T* u, int64_t n) const {
        if (of_p == BFLOAT16)
            for (int64_t i = 0; i < n; i++) u[i] = p[i] + T(to_bfloat16(before_bfloat16(u[i])));
        else if (of_p == FLOAT16)
            for (int64_t i = 0; i < n; i++) u[i] = p[i] + T(to_float16(float(u[i])));
        else
            for (int64_t i = 0; i < n; i++) u[i] = p[i] + u[i];
    }
};

constexpr int64_t LEAST_PART = 1 << 14;  // elements for which another thread is worth its while

int64_t parts(int64_t elements, int64_t threads) { return std::max(int64_t(1), std::min(threads, elements / LEAST_PART)); }

// Where the part ends: at a multiple of 16, so that no two threads write into the same 64 bytes.
int64_t end_of(int64_t part, int64_t of, int64_t elements) {
    return part == of - 1 ? elements : elements / of * (part + 1) / 16 * 16;
}

// Runs something in up to k threads: those of PyTorch where they are GNU OpenMP's, which wait for work; else new ones, or fewer.
template <class Work> void together(int64_t k, Work work) {
    using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);
    static const auto parallel = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    static const pid_t first = getpid();  // the threads of OpenMP are not there in a process that was forked from this one
    if (k > 1 && parallel && getpid() == first) return parallel([](void* own) { (*static_cast<Work*>(own))(); }, &work, unsigned(k), 0);
    std::vector<std::thread> others;
    others.reserve(k - 1);
    try {
        while (int64_t(others.size()) < k - 1) others.emplace_back(work);
    } catch (const std::system_error&) {}  // no more are to be had
    work();
    for (auto& other : others) other.join();
}

}  // namespace

extern "C" {

// What it was built of, as one_pass/build.py says it.
EXPORTED const char* one_pass_sources() { return SOURCES; }

EXPORTED const char* one_pass_instructions() { return has_avx2() ? "avx2" : "plain"; }

EXPORTED int one_pass_has(const char* name) { return program(name) != nullptr; }

// One step for torch_ref: table[leaf] is n, g, p, out, and for each field before and after; kinds are computed, of p, of g, of fields.
// Subnormals are treated as the calling thread does. Returns 0; or 1 where there is no such program.
EXPORTED int one_pass_step(const char* name, const double* h, const int64_t* kinds, const int64_t* table, int64_t leaves, int64_t applied, int64_t threads) {
    Step step{};
    if (!(step.program = program(name))) return 1;
    step.computed = Kind(kinds[0]), step.of_p = Kind(kinds[1]), step.of_g = Kind(kinds[2]);
    for (int f = 0; f < step.program->fields; f++) step.of_field[f] = Kind(kinds[3 + f]);
    step.applied = applied, step.flushed = Subnormals::flushed();
    step.leaves.reserve(leaves);
    for (int64_t i = 0; i < leaves; i++) {
        Leaf leaf{};
        leaf.n = *table++;
        leaf.g = reinterpret_cast<const void*>(*table++);
        leaf.p = reinterpret_cast<const void*>(*table++);
        leaf.out = reinterpret_cast<void*>(*table++);
        for (int f = 0; f < step.program->fields; f++) {
            leaf.before[f] = reinterpret_cast<const void*>(*table++);
            leaf.after[f] = reinterpret_cast<void*>(*table++);
        }
        step.leaves.push_back(leaf);
    }
    step.prepare(h);
    const int64_t elements = step.elements(), k = parts(elements, threads);
    std::atomic<int64_t> next{0};
    together(k, [&] {  // each thread takes the next part until there is none
        for (int64_t j; (j = next++) < k;) step.run(j ? end_of(j - 1, k, elements) : 0, end_of(j, k, elements));
    });
    return 0;
}
}

namespace {
namespace ffi = xla::ffi;

double number_of(const ffi::AnyBuffer& x, int64_t lane) {
    switch (x.element_type()) {
        case ffi::DataType::F32: return static_cast<const float*>(x.untyped_data())[lane];
        case ffi::DataType::F64: return static_cast<const double*>(x.untyped_data())[lane];
        case ffi::DataType::S32: return static_cast<const int32_t*>(x.untyped_data())[lane];
        default: return 0;  // one_pass.py of jaxopt_impl gives no other
    }
}

// Operands: the hyper-parameters that only the run tells, [] or [lanes]; then for each leaf g, p where `has_p`, and its fields.
// Results: for each leaf the update or the next parameters, and its fields. With lanes each leaf has an axis of them in front.
// Subnormals are kept where the parameters are stepped here. An update is added by the program around, so it treats them as that does.
ffi::Future Update(ffi::ThreadPool pool, ffi::RemainingArgs args, ffi::RemainingRets rets, std::string_view name, ffi::Span<const double> known,
                   ffi::Span<const int64_t> places, ffi::Span<const int64_t> kinds, bool has_p, bool applied, int64_t lanes) {
    const Program* found = program(name);
    if (!found) {
        ffi::Promise none;
        none.SetError(ffi::Error(ffi::ErrorCode::kNotFound, "one_pass: the library has no such program"));
        return ffi::Future(none);
    }
    const int64_t each = 1 + has_p + found->fields, told = int64_t(places.size());
    const int64_t leaves = (int64_t(args.size()) - told) / each;
    const bool flushed = !applied && Subnormals::flushed();
    auto steps = std::make_shared<std::vector<Step>>(lanes);
    std::vector<double> h(known.begin(), known.end());
    for (int64_t lane = 0; lane < lanes; lane++) {
        Step& step = (*steps)[lane];
        step.program = found;
        step.computed = Kind(kinds[0]), step.of_p = Kind(kinds[1]), step.of_g = Kind(kinds[2]);
        for (int f = 0; f < found->fields; f++) step.of_field[f] = Kind(kinds[3 + f]);
        step.applied = applied, step.flushed = flushed;
        step.leaves.resize(leaves);
        for (int64_t i = 0; i < told; i++) h[places[i]] = number_of(*args.get<ffi::AnyBuffer>(i), lane);
        step.prepare(h.data());
    }
    int64_t in = told, out = 0;
    for (int64_t i = 0; i < leaves; i++) {
        const ffi::AnyBuffer g = *args.get<ffi::AnyBuffer>(in);
        const int64_t n = int64_t(g.element_count()) / lanes;
        for (int64_t lane = 0; lane < lanes; lane++) {
            const Step& step = (*steps)[lane];
            auto from = [&](int64_t j, Kind kind) { return static_cast<const char*>(args.get<ffi::AnyBuffer>(j)->untyped_data()) + lane * n * SIZES[kind]; };
            auto to = [&](int64_t j, Kind kind) { return static_cast<char*>((*rets.get<ffi::AnyBuffer>(j))->untyped_data()) + lane * n * SIZES[kind]; };
            Leaf& leaf = (*steps)[lane].leaves[i];
            leaf.n = n;
            leaf.g = from(in, step.of_g);
            leaf.p = has_p ? from(in + 1, step.of_p) : nullptr;
            leaf.out = to(out, step.of_p);
            for (int f = 0; f < found->fields; f++) {
                leaf.before[f] = from(in + 1 + has_p + f, step.of_field[f]);
                leaf.after[f] = to(out + 1 + f, step.of_field[f]);
            }
        }
        in += each;
        out += 1 + found->fields;
    }
    const int64_t elements = (*steps)[0].elements(), k = parts(elements * lanes, int64_t(pool.num_threads()));
    auto part = [steps, elements, k](int64_t j) {
        for (const Step& step : *steps) step.run(j ? end_of(j - 1, k, elements) : 0, end_of(j, k, elements));
    };
    ffi::CountDownPromise promise(k);
    ffi::Future future(promise);
    for (int64_t j = 1; j < k; j++)
        pool.Schedule([part, promise, j]() mutable {
            part(j);
            promise.CountDown();
        });
    part(0);
    promise.CountDown();
    return future;
}
}  // namespace

extern "C" EXPORTED XLA_FFI_Error* one_pass_update(XLA_FFI_CallFrame*);
XLA_FFI_DEFINE_HANDLER_SYMBOL(one_pass_update, Update,
                              ffi::Ffi::Bind()
                                  .Ctx<ffi::ThreadPool>()
                                  .RemainingArgs()
                                  .RemainingRets()
                                  .Attr<std::string_view>("program")
                                  .Attr<ffi::Span<const double>>("known")
                                  .Attr<ffi::Span<const int64_t>>("places")
                                  .Attr<ffi::Span<const int64_t>>("kinds")
                                  .Attr<bool>("has_p")
                                  .Attr<bool>("applied")
                                  .Attr<int64_t>("lanes"));
