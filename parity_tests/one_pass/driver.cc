// Steps each program that stdin names, with odd sizes, each array alone in memory: for the sanitizers, which see what is read or written
// beside it. Lines are `name hyper-parameters fields`.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

extern "C" int one_pass_step(const char*, const double*, const int64_t*, const int64_t*, int64_t, int64_t, int64_t);

// computed, of p, of g, of the fields
constexpr int64_t KINDS[][4] = {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}, {0, 2, 2, 0}, {0, 3, 3, 0}, {0, 2, 0, 2}, {1, 1, 1, 2}};
constexpr int64_t SIZES[] = {0, 1, 7, 17, 1023, 1025, 3 * (1 << 14) + 5};
constexpr int64_t BYTES[] = {4, 8, 2, 2};

struct Block {
    void* start;
    explicit Block(int64_t bytes) : start(std::malloc(bytes)) {
        for (int64_t i = 0; i < bytes; i++) static_cast<unsigned char*>(start)[i] = static_cast<unsigned char>(i * 31 + 7);
    }
    Block(Block&& other) : start(other.start) { other.start = nullptr; }
    ~Block() { std::free(start); }
};

int main() {
    char name[200];
    int hyper, fields, steps = 0;
    while (std::scanf("%199s %d %d", name, &hyper, &fields) == 3) {
        const std::vector<double> h(hyper, 0.5);
        for (const auto& of : KINDS)
            for (int64_t applied = 0; applied < 2; applied++)
                for (int64_t threads : {1, 3}) {
                    std::vector<int64_t> kinds{of[0], of[1], of[2]}, table;
                    std::vector<Block> arrays;
                    auto array = [&](int64_t n, int64_t kind) {
                        arrays.emplace_back(n * BYTES[kind]);
                        return int64_t(arrays.back().start);
                    };
                    for (int f = 0; f < fields; f++) kinds.push_back(of[3]);
                    for (int64_t n : SIZES) {
                        table.push_back(n);
                        table.push_back(array(n, of[2]));
                        const int64_t p = array(n, of[1]);
                        table.push_back(p);
                        table.push_back(p);
                        for (int f = 0; f < fields; f++) table.insert(table.end(), 2, array(n, of[3]));
                    }
                    if (one_pass_step(name, h.data(), kinds.data(), table.data(), sizeof SIZES / 8, applied, threads)) return 1;
                    steps++;
                }
    }
    std::printf("%d steps\n", steps);
}
