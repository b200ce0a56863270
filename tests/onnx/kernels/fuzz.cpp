// Packed weights from files, damaged at random, to kernels that were compiled with sanitizers. Parts lie in memory of
// exactly their size, so that every read outside of them is found.
//   fuzz SEED RUNS FILE...   (int64: format, dtype, N, K, group, 4 sizes; then the parts)
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <vector>

#include "product.h"

namespace {

struct Example {
  int64_t head[5];
  std::vector<uint8_t> parts[4];
};

Example read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  Example example;
  int64_t sizes[4];
  file.read(reinterpret_cast<char*>(example.head), sizeof example.head);
  file.read(reinterpret_cast<char*>(sizes), sizeof sizes);
  for (int part = 0; part < 4; ++part) {
    example.parts[part].resize(size_t(sizes[part]));
    file.read(reinterpret_cast<char*>(example.parts[part].data()), sizes[part]);
  }
  if (!file) std::exit(2);
  return example;
}

}  // namespace

int main(int count, char** words) {
  if (count < 4) return 2;
  std::mt19937_64 random(std::strtoull(words[1], nullptr, 10));
  const long runs = std::atol(words[2]);
  std::vector<Example> examples;
  for (int number = 3; number < count; ++number) examples.push_back(read(words[number]));
  auto below = [&](uint64_t limit) { return limit ? random() % limit : 0; };
  long multiplied = 0, refused = 0;
  for (long run = 0; run < runs; ++run) {
    Example example = examples[below(examples.size())];
    for (uint64_t change = below(4); change; --change) {
      std::vector<uint8_t>& part = example.parts[below(4)];
      switch (below(6)) {
        case 0: part.resize(below(part.size() + 40)); break;
        case 1: example.head[2 + below(3)] = below(4) ? int64_t(below(90)) - 2 : int64_t(random()); break;
        case 2: example.head[below(2)] = int64_t(below(4)); break;
        case 3: if (part.size() >= 4) { const uint32_t wide = uint32_t(random()); std::memcpy(&part[below(part.size() - 3)], &wide, 4); } break;
        default: if (!part.empty()) part[below(part.size())] = uint8_t(random());
      }
    }
    std::vector<uint8_t> exact[4];
    si::Bytes bytes[4];
    for (int part = 0; part < 4; ++part) {
      exact[part] = std::vector<uint8_t>(example.parts[part].begin(), example.parts[part].end());
      bytes[part] = {exact[part].data(), exact[part].size()};
    }
    const si::Packed packed{si::Format(example.head[0]), si::DType(example.head[1]), example.head[2], example.head[3],
                            example.head[4], bytes[0], bytes[1], bytes[2], bytes[3]};
    if (si::problem(packed)) { ++refused; continue; }
    const int64_t rows = 1 + int64_t(below(40));
    std::vector<float> x(size_t(rows * packed.columns), 0.5f), y(size_t(rows * packed.rows));
    for (si::Isa isa : {si::Isa::kPortable, si::Isa::kAvx2, si::Isa::kAvx512})
      if (si::supported(isa)) si::product(packed, isa, x.data(), rows, nullptr, y.data(),
                  [](size_t tasks, const std::function<void(size_t)>& each) { while (tasks) each(--tasks); });
    ++multiplied;
  }
  std::printf("%ld multiplied, %ld refused\n", multiplied, refused);
  return 0;
}
