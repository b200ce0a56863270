// Whether kernels give what they must on this machine: every format and dtype, times small integers, which have one
// right answer. Portable code is held to an answer that is known, and other kernels to portable code.
#include <cstring>
#include <vector>

#include "product.h"
#include "tables.h"

namespace si {
namespace {

constexpr int64_t kRows = 20, kColumns = 192;

void in_line(size_t count, const std::function<void(size_t)>& each) {
  for (size_t number = 0; number < count; ++number) each(number);
}

// 1 x 8 in 2:4: columns 1 and 3 of the first group, 0 and 2 of the second one.
bool portable_is_right() {
  std::vector<uint8_t> values(8 * 8 / 2 * 4 + kSlack), indices(8 + kSlack);
  const float weights[4] = {2, -3, 5, 7}, x[8] = {1, 2, 3, 4, 5, 6, 7, 8};
  std::memcpy(values.data(), weights, 8);            // slots (group, row, number): the first row's of the first group
  std::memcpy(values.data() + 16, weights + 2, 8);   // and of the second one
  indices[0] = 2 * 4, indices[1] = 2 * 1;
  const Packed packed{Format::kTwoOfFour, DType::kFp32, 1, 8, 0, {values.data(), values.size()},
                      {indices.data(), indices.size()}, {}, {}};
  float y = 0;
  if (problem(packed)) return false;
  product(packed, Isa::kPortable, x, 1, nullptr, &y, in_line);
  return y == 2 * 2 - 3 * 4 + 5 * 5 + 7 * 7;
}

struct Example {
  std::vector<uint8_t> values, indices, starts, scales;
  Packed packed;

  Example(Format format, DType dtype) : packed{format, dtype, kRows, kColumns, 0, {}, {}, {}, {}} {
    if (dtype == DType::kInt8) packed.group = kColumns;
    if (dtype == DType::kInt4) packed.group = kUnit;
    const int64_t rows = packed.padded_rows();
    int64_t count = rows * kColumns / 2;
    if (format == Format::kCsr) {
      count = csr_parts();
    } else {
      indices.resize(size_t(rows * kColumns / 8));
      for (size_t at = 0; at < indices.size(); ++at) indices[at] = index_of(at);
      if (format == Format::kBitmask) count = bitmask_starts();
    }
    store(dtype, count);
    const int bytes = dtype == DType::kInt4 ? 2 : 4;
    for (int64_t number = 0; packed.group && number < rows * packed.groups(); ++number) {
      const uint32_t bits = bytes == 2 ? 0x3c00 : 0x3f800000;  // 1
      scales.insert(scales.end(), reinterpret_cast<const uint8_t*>(&bits), reinterpret_cast<const uint8_t*>(&bits) + bytes);
    }
    values.resize(values.size() + kSlack), indices.resize(indices.size() + kSlack);
    packed.values = {values.data(), values.size()}, packed.indices = {indices.data(), indices.size()};
    packed.starts = {starts.data(), starts.size()}, packed.scales = {scales.data(), scales.size()};
  }

  uint8_t index_of(size_t at) const {
    if (packed.in_blocks()) return at % 2 ? 0xe6 : 0x11;  // positions 0 and 3, 1 and 2 in turn
    if (packed.format == Format::kTwoOfFour) return uint8_t(2 * (at % kPairCases));
    if (packed.format == Format::kFourOfEight) return uint8_t(2 * (at % kFourCases));
    return uint8_t(at * 37);
  }

  void add_start(int64_t number) {
    const uint32_t start = uint32_t(number);
    starts.insert(starts.end(), reinterpret_cast<const uint8_t*>(&start), reinterpret_cast<const uint8_t*>(&start) + 4);
  }

  int64_t bitmask_starts() {
    int64_t count = 0;
    const size_t strip = size_t(kColumns / kStep * kMaskStrip);
    for (size_t at = 0; at < indices.size(); ++at) {
      if (at % strip == 0) add_start(count);
      count += __builtin_popcount(indices[at]);
    }
    add_start(count);
    return count;
  }

  int64_t csr_parts() {
    int64_t count = 0;
    add_start(0);
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t column = row % 3; column < kColumns; column += 3 + row % 4, ++count) {
        indices.push_back(uint8_t(column & 255)), indices.push_back(uint8_t(column >> 8));
      }
      add_start(count);
    }
    return count;
  }

  void store(DType dtype, int64_t count) {
    for (int64_t number = 0; number < count; ++number) {
      const int value = int(number * 7 % 5) - 2;
      const float whole = float(value);
      constexpr uint16_t halves[5] = {0xc000, 0xbc00, 0, 0x3c00, 0x4000};
      const auto* bytes = dtype == DType::kFp32 ? reinterpret_cast<const uint8_t*>(&whole)
                                                : reinterpret_cast<const uint8_t*>(&halves[value + 2]);
      if (dtype == DType::kFp32) values.insert(values.end(), bytes, bytes + 4);
      if (dtype == DType::kFp16) values.insert(values.end(), bytes, bytes + 2);
      if (dtype == DType::kInt8) values.push_back(uint8_t(value));
      if (dtype == DType::kInt4 && number % 2 == 0) values.push_back(uint8_t(value + 8));
      if (dtype == DType::kInt4 && number % 2 == 1) values.back() |= uint8_t((value + 8) << 4);
    }
  }
};

bool agrees(Isa isa, const Packed& packed, int64_t count) {
  std::vector<float> x(size_t(count * kColumns)), expected(size_t(count * kRows)), got(expected);
  // Whole numbers up to 127 in each unit, so that x in 8 bits is exact.
  for (size_t at = 0; at < x.size(); ++at) x[at] = at % kUnit ? float(int(at * 31 % 17) - 8) : 127.0f;
  product(packed, Isa::kPortable, x.data(), count, nullptr, expected.data(), in_line);
  product(packed, isa, x.data(), count, nullptr, got.data(), in_line);
  return expected == got;
}

}  // namespace

bool self_test(Isa isa) {
  if (!portable_is_right()) return false;
  if (isa == Isa::kPortable) return true;
  for (Format format : {Format::kTwoOfFour, Format::kFourOfEight, Format::kBitmask, Format::kCsr})
    for (DType dtype : {DType::kFp32, DType::kFp16, DType::kInt8, DType::kInt4}) {
      const Example example(format, dtype);
      if (problem(example.packed)) return false;
      for (int64_t count : {1, 2, 7, 35})
        if (!agrees(isa, example.packed, count)) return false;
    }
  return true;
}

}  // namespace si
