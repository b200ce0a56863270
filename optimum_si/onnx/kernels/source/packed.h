// A packed weight: what its parts are, and whether they fit together. Layouts are described in packing.py, which makes
// them; both sides know them as version 1.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace si {

enum class Format : int { kTwoOfFour, kFourOfEight, kBitmask, kCsr };
enum class Values : int { kFp32, kFp16, kInt8, kInt4 };

constexpr int64_t kVersion = 1;
constexpr int64_t kStrip = 8;       // rows that N:M weights and their kernels treat together
constexpr int64_t kStep = 8;        // columns that all layouts but CSR are cut into
constexpr int64_t kMaskStrip = 4;   // rows of a strip of bitmasks
constexpr int64_t kInt4Columns = 64;  // columns that 2:4 in 4 bits is cut into
constexpr int64_t kInt4Strip = 4;
constexpr int64_t kSlack = 32;      // bytes after values and indices that kernels may read but never use

struct Bytes {
  const uint8_t* data = nullptr;
  size_t size = 0;
};

struct Packed {
  Format format;
  Values values_kind;
  int64_t rows = 0;     // N
  int64_t columns = 0;  // K
  int64_t group = 0;    // columns that share a scale; 0 is no scale
  Bytes values;
  Bytes indices;
  Bytes starts;  // first value of each strip (bitmask) or row (CSR) and the number of all values, uint32
  Bytes scales;  // fp32 (int8: [rows, groups]), or fp16 (int4)

  int64_t padded_rows() const;
  int64_t padded_columns() const;
  int64_t groups() const { return group ? (columns + group - 1) / group : 0; }
};

// First value of a strip or row. Static: files are compiled for other instructions, and must not share it.
static inline uint32_t start_at(const Packed& packed, int64_t number) {
  uint32_t start;
  std::memcpy(&start, packed.starts.data + 4 * number, 4);
  return start;
}

// What is wrong with the parts, or nullptr. Afterwards kernels read nothing outside of them.
const char* problem(const Packed& packed);

// y[m, n] = sum over k of x[m, k] w[n, k] (+ bias[n]) for rows [first, last) of the weight, which begin and end with a
// strip. x is [count, padded columns], zeros after the columns; y has `stride` floats between its rows.
struct Task {
  const Packed* packed;
  const float* x;
  const int8_t* x8;        // of 2:4 in 4 bits: x in 8 bits, and the scale of each 32 columns
  const float* x8_scales;
  int64_t count;
  const float* bias;
  float* y;
  int64_t stride;
  bool dense;  // multiply by zeros too, as where x holds an infinity
};
using Kernel = void (*)(const Task&, int64_t first, int64_t last);

// Rows of a strip of a format.
int64_t strip_of(const Packed& packed);
// Dense [last - first, columns] rows of a weight; the reference for everything else.
void expand(const Packed& packed, int64_t first, int64_t last, float* out);

namespace portable { void multiply(const Task&, int64_t, int64_t); }
namespace avx2 { void multiply(const Task&, int64_t, int64_t); }

}  // namespace si
