// A packed weight: what its parts are, and whether they fit together. Layouts are described in packed.py; both sides
// know them as version 1.
#pragma once
#include <cstddef>
#include <cstdint>

namespace si {

enum class Format : int { kTwoOfFour, kFourOfEight, kBitmask, kCsr };
enum class DType : int { kFp32, kFp16, kInt8, kInt4 };

constexpr int64_t kVersion = 1;
constexpr int64_t kStep = 8;           // columns that all layouts but CSR and blocks are cut into
constexpr int64_t kPairStrip = 8;      // rows that 2:4 in floating point and its kernels treat together
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
  DType dtype;          // of the values
  int64_t rows = 0;     // N
  int64_t columns = 0;  // K
  int64_t group = 0;    // columns that share a scale; 0 is no scale
  Bytes values;
  Bytes indices;
  Bytes starts;  // first value of each strip (bitmask) or row (CSR) and the number of all values, uint32
  Bytes scales;  // fp32 (int8) or fp16 (int4): [strips, groups, 4], of CSR [rows, groups]

  // Rows that a format treats together, and both sizes with what fills up strips and steps.
  int64_t strip() const;
  int64_t padded_rows() const;
  int64_t padded_columns() const;
  int64_t groups() const;
  bool has_groups() const;  // several scales a row
  bool in_blocks() const;   // 2:4 in integers
  bool in_masks() const;
};

// What is wrong with the parts, or nullptr. Afterwards kernels read nothing outside of them.
const char* problem(const Packed& packed);

}  // namespace si
