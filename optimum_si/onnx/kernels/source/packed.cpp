// Whether the parts of a packed weight fit together; validate.py asks the same where there is no library.
#include "packed-inl.h"

namespace si {
namespace {

using namespace portable;

int64_t round_up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

size_t bytes_of(DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kFp32: return size_t(count) * 4;
    case DType::kFp16: return size_t(count) * 2;
    case DType::kInt8: return size_t(count);
    default: return size_t(count + 1) / 2;
  }
}

// Codes of patterns are even and below twice the index of cases.
const char* codes_problem(const Packed& p, int64_t count, int cases) {
  uint8_t most = 0, all = 0;
  for (int64_t at = 0; at < count; ++at) {
    most = p.indices.data[at] > most ? p.indices.data[at] : most;
    all |= p.indices.data[at];
  }
  return all & 1 || most >= 2 * cases ? "an index is no code of the pattern: the pattern does not hold" : nullptr;
}

const char* blocks_problem(const Packed& p) {
  const int64_t bytes = p.padded_rows() * p.padded_columns() / 8;
  for (int64_t at = 0; at < bytes; at += 2)
    for (int block = 0; block < 4; ++block)
      if ((p.indices.data[at] >> (2 * block) & 3) >= (p.indices.data[at + 1] >> (2 * block) & 3))
        return "positions in a group are not ascending: the pattern does not hold";
  return nullptr;
}

const char* starts_problem(const Packed& p, int64_t count) {
  if (p.starts.size != size_t(count + 1) * 4) return "starts have another size than the shape needs";
  if (start_at(p, 0) != 0) return "starts do not begin at 0";
  for (int64_t index = 0; index < count; ++index)
    if (start_at(p, index) > start_at(p, index + 1)) return "starts are not ascending";
  return nullptr;
}

const char* bitmask_problem(const Packed& p) {
  const int64_t strips = p.padded_rows() / kMaskStrip, steps = p.padded_columns() / kStep;
  const uint8_t tail = uint8_t(0xff >> (p.padded_columns() - p.columns));
  for (int64_t strip = 0; strip < strips; ++strip) {
    uint64_t count = 0;
    for (int64_t step = 0; step < steps; ++step)
      for (int row = 0; row < kMaskStrip; ++row) {
        const uint8_t mask = p.indices.data[(strip * steps + step) * kMaskStrip + row];
        if (mask && strip * kMaskStrip + row >= p.rows) return "a mask has bits in rows that the weight lacks";
        if (step == steps - 1 && (mask & ~tail)) return "a mask has bits in columns that the weight lacks";
        count += uint64_t(__builtin_popcount(mask));
      }
    if (count != start_at(p, strip + 1) - start_at(p, strip)) return "masks and starts count differently many values";
  }
  return nullptr;
}

const char* csr_problem(const Packed& p) {
  for (int64_t row = 0; row < p.rows; ++row) {
    int64_t before = -1;
    for (uint32_t index = start_at(p, row); index < start_at(p, row + 1); ++index) {
      const uint16_t column = column_at(p, index);
      if (column >= p.columns) return "a column index is out of range";
      if (column <= before) return "column indices of a row are not ascending";
      before = column;
    }
  }
  return nullptr;
}

}  // namespace

int64_t Packed::strip() const {
  if (format == Format::kCsr) return 1;
  if (in_masks()) return kMaskStrip;
  return in_blocks() ? kBlockStrip : kPairStrip;
}

int64_t Packed::padded_rows() const { return round_up(rows, strip()); }

int64_t Packed::padded_columns() const {
  if (format == Format::kCsr) return columns;
  return round_up(columns, in_blocks() ? kBlockColumns : kStep);
}

int64_t Packed::groups() const { return group ? (columns + group - 1) / group : 0; }

bool Packed::has_groups() const { return group && group < columns; }

bool Packed::in_blocks() const {
  return format == Format::kTwoOfFour && (dtype == DType::kInt8 || dtype == DType::kInt4);
}

bool Packed::in_masks() const { return format == Format::kFourOfEight || format == Format::kBitmask; }

const char* problem(const Packed& p) {
  if (p.rows < 1 || p.columns < 1) return "rows and columns must be positive";
  if (p.rows > (int64_t(1) << 31) || p.columns > (int64_t(1) << 31)) return "the shape is too large";
  const bool whole = p.dtype == DType::kFp32 || p.dtype == DType::kFp16;
  if (whole != (p.group == 0)) return whole ? "values in floating point take no scales" : "integer values need scales";
  if (p.group > (int64_t(1) << 31)) return "group is too large";
  if (p.group < 0 || (p.group && p.group < p.columns && p.group != kUnit && p.group % (2 * kUnit)))
    return "group is neither 32 nor a multiple of 64";
  const int64_t rows = p.padded_rows(), columns = p.padded_columns();
  const size_t scales = size_t(rows * p.groups()) * (p.dtype == DType::kInt4 ? 2 : 4);
  if (p.scales.size != scales) return "scales have another size than the shape needs";
  int64_t values = rows * columns / 2, indices = rows * columns / 8;
  if (p.format == Format::kTwoOfFour || p.format == Format::kFourOfEight) {
    if (p.starts.size) return "N:M weights have no starts";
  } else {
    const int64_t count = p.format == Format::kCsr ? p.rows : rows / kMaskStrip;
    if (p.format == Format::kCsr && columns > 65536) return "16-bit column indices reach 65536 columns";
    if (const char* wrong = starts_problem(p, count)) return wrong;
    values = start_at(p, count);
    if (p.format == Format::kCsr) indices = 2 * values;
  }
  if (p.values.size != bytes_of(p.dtype, values) + kSlack) return "values have another size than the shape needs";
  if (p.indices.size != size_t(indices) + kSlack) return "indices have another size than the shape needs";
  switch (p.format) {
    case Format::kTwoOfFour: return p.in_blocks() ? blocks_problem(p) : codes_problem(p, indices, kPairCases);
    case Format::kFourOfEight: return codes_problem(p, indices, kFourCases);
    case Format::kBitmask: return bitmask_problem(p);
    default: return csr_problem(p);
  }
}

}  // namespace si
