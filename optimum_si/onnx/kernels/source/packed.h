// A packed weight: what its parts are, and whether they fit together. Layouts are described in packing.py, which makes
// them; both sides know them as version 1.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>

#include "tables.h"

namespace si {

enum class Format : int { kTwoOfFour, kFourOfEight, kBitmask, kCsr };
enum class Values : int { kFp32, kFp16, kInt8, kInt4 };

constexpr int64_t kVersion = 1;
constexpr int64_t kStep = 8;           // columns that all layouts but CSR and blocks are cut into
constexpr int64_t kStrip = 8;          // rows that 2:4 in floating point and its kernels treat together
constexpr int64_t kMaskStrip = 4;      // rows of a strip of masks
constexpr int64_t kBlockStrip = 4;     // and of blocks, so that 4 rows have their scales together
constexpr int64_t kBlockColumns = 64;  // columns of a chunk of 4 blocks
constexpr int64_t kUnit = 32;          // columns that share a scale of x in 8 bits; groups of the weight are whole units
constexpr int64_t kSlack = 64;         // bytes after values and indices that kernels may read but never use

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
  Bytes scales;  // fp32 (int8) or fp16 (int4): [strips, groups, 4], of CSR [rows, groups]

  int64_t padded_rows() const;
  int64_t padded_columns() const;
  int64_t groups() const { return group ? (columns + group - 1) / group : 0; }
  bool in_blocks() const {  // 2:4 in integers
    return format == Format::kTwoOfFour && (values_kind == Values::kInt8 || values_kind == Values::kInt4);
  }
  bool in_masks() const { return format == Format::kFourOfEight || format == Format::kBitmask; }
};

// First value of a strip or row. Static: files are compiled for other instructions, and must not share it.
static inline uint32_t start_at(const Packed& packed, int64_t number) {
  uint32_t start;
  std::memcpy(&start, packed.starts.data + 4 * number, 4);
  return start;
}

// Floats from the beginning of a cache line on, so that no register is read from two of them.
class Lines {
 public:
  Lines() = default;
  explicit Lines(int64_t count) : all_(new float[size_t(count + 16)]) {
    const uintptr_t start = reinterpret_cast<uintptr_t>(all_.get());
    first_ = all_.get() + (64 - start % 64) % 64 / sizeof(float);
  }
  float* get() const { return first_; }

 private:
  std::unique_ptr<float[]> all_;
  float* first_ = nullptr;
};

// Number of the first value of a strip of masks.
static inline int64_t first_of(const Packed& packed, int64_t strip, int64_t steps) {
  return packed.format == Format::kBitmask ? int64_t(start_at(packed, strip)) : strip * steps * 4 * kMaskStrip;
}

// Mask of an index byte of 4:8 or a bitmask.
static inline unsigned mask_of(const Packed& packed, uint8_t index) {
  return packed.format == Format::kBitmask ? index : kShuffles.masks[index];
}

// What is wrong with the parts, or nullptr. Afterwards kernels read nothing outside of them.
const char* problem(const Packed& packed);

// Tiles of x with its rows side by side: [tiles][padded columns][rows of a tile]. The last tile is narrower.
struct Turned {
  const float* data = nullptr;
  int64_t tile = 0;   // rows of a full tile
  int64_t lanes = 0;  // of which the rows of each tile are a multiple
};

// y[m, n] = sum over k of x[m, k] w[n, k] (+ bias[n]) for rows [first, last) of the weight, which begin and end with a
// strip. x is [count, padded columns], zeros after the columns; y has `stride` floats between its rows.
struct Task {
  const Packed* packed;
  const float* x;
  const int8_t* x8;        // for blocks: x in 8 bits, [count, padded columns], and a scale for each unit
  const float* x8_scales;
  Turned turned;           // for kernels of many rows
  int64_t count;
  const float* bias;
  float* y;
  int64_t stride;
  bool dense;  // multiply by zeros too, as where x holds an infinity
};
using Kernel = void (*)(const Task&, int64_t first, int64_t last);

// Rows of a strip of a format.
int64_t strip_of(const Packed& packed);
// Scale of a value, 1 for floating point.
float scale_of(const Packed& packed, int64_t row, int64_t group);
// Dense [last - first, columns] rows of a weight; the reference for everything else.
void expand(const Packed& packed, int64_t first, int64_t last, float* out);

namespace portable { void multiply(const Task&, int64_t, int64_t); }
namespace avx2 {
void multiply(const Task&, int64_t, int64_t);
// x in 8 bits with a scale for each unit; `count` is whole units.
void quantize(const float* x, int64_t count, int8_t* out, float* scales);
}  // namespace avx2
namespace avx512 { void multiply(const Task&, int64_t, int64_t); }

}  // namespace si
