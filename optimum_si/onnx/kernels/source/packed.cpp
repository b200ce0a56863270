#include "packed.h"

#include <cstring>

namespace si {
namespace {

int64_t up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

size_t bytes_of(Values kind, int64_t count) {
  switch (kind) {
    case Values::kFp32: return size_t(count) * 4;
    case Values::kFp16: return size_t(count) * 2;
    case Values::kInt8: return size_t(count);
    default: return size_t(count + 1) / 2;
  }
}

float from_half(uint16_t half) {
  const uint32_t sign = uint32_t(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 31, fraction = half & 0x3ff, bits;
  if (exponent == 31) {
    bits = sign | 0x7f800000 | fraction << 13;
  } else if (exponent) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else if (fraction) {  // a denormal half is a normal float
    exponent = 113;
    while (!(fraction & 0x400)) fraction <<= 1, --exponent;
    bits = sign | exponent << 23 | (fraction & 0x3ff) << 13;
  } else {
    bits = sign;
  }
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

float half_at(const uint8_t* data, int64_t number) {
  uint16_t half;
  std::memcpy(&half, data + 2 * number, 2);
  return from_half(half);
}

// Value `number` of the stream, without its scale.
float value_at(const Packed& p, int64_t number) {
  const uint8_t* data = p.values.data;
  float value;
  switch (p.values_kind) {
    case Values::kFp32: std::memcpy(&value, data + 4 * number, 4); return value;
    case Values::kFp16: return half_at(data, number);
    case Values::kInt8: return float(int8_t(data[number]));
    default: return float((data[number / 2] >> (number % 2 ? 4 : 0) & 15) - 8);
  }
}

// Where slot `slot` of pair `pair` of a step stands: its row in the strip and its column in the step.
void place_of(const Packed& p, int64_t step, int64_t pair, int slot, int& row, int& column) {
  const uint8_t bits = kShuffles.positions[p.indices.data[(step * 4 + pair) * 2 + slot / 4] / 2];
  row = int(2 * pair) + (slot >> 1 & 1);
  column = (slot >> 2) * 4 + (bits >> (2 * (slot % 4)) & 3);
}

// Codes of patterns are even and below twice the number of cases.
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
  for (int64_t number = 0; number < count; ++number)
    if (start_at(p, number) > start_at(p, number + 1)) return "starts are not ascending";
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
    for (uint32_t number = start_at(p, row); number < start_at(p, row + 1); ++number) {
      uint16_t column;
      std::memcpy(&column, p.indices.data + 2 * size_t(number), 2);
      if (column >= p.columns) return "a column index is out of range";
      if (column <= before) return "column indices of a row are not ascending";
      before = column;
    }
  }
  return nullptr;
}

}  // namespace

int64_t Packed::padded_rows() const { return up(rows, strip_of(*this)); }

int64_t Packed::padded_columns() const {
  if (format == Format::kCsr) return columns;
  return up(columns, in_blocks() ? kBlockColumns : kStep);
}

int64_t strip_of(const Packed& p) {
  if (p.format == Format::kCsr) return 1;
  if (p.in_masks()) return kMaskStrip;
  return p.in_blocks() ? kBlockStrip : kStrip;
}

float scale_of(const Packed& p, int64_t row, int64_t group) {
  if (!p.group) return 1.0f;
  const int64_t groups = p.groups();
  const int64_t at = p.format == Format::kCsr ? row * groups + group : (row / 4 * groups + group) * 4 + row % 4;
  if (p.values_kind == Values::kInt4) return half_at(p.scales.data, at);
  float scale;
  std::memcpy(&scale, p.scales.data + 4 * at, 4);
  return scale;
}

const char* problem(const Packed& p) {
  if (p.rows < 1 || p.columns < 1) return "rows and columns must be positive";
  if (p.rows > (int64_t(1) << 31) || p.columns > (int64_t(1) << 31)) return "the shape is too large";
  const bool whole = p.values_kind == Values::kFp32 || p.values_kind == Values::kFp16;
  if (whole != (p.group == 0)) return whole ? "values in floating point take no scales" : "integer values need scales";
  if (p.group > (int64_t(1) << 31)) return "group is too large";
  if (p.group < 0 || (p.group && p.group < p.columns && p.group != kUnit && p.group % (2 * kUnit)))
    return "group is neither 32 nor a multiple of 64";
  const int64_t rows = p.padded_rows(), columns = p.padded_columns();
  const size_t scales = size_t(rows * p.groups()) * (p.values_kind == Values::kInt4 ? 2 : 4);
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
  if (p.values.size != bytes_of(p.values_kind, values) + kSlack) return "values have another size than the shape needs";
  if (p.indices.size != size_t(indices) + kSlack) return "indices have another size than the shape needs";
  switch (p.format) {
    case Format::kTwoOfFour: return p.in_blocks() ? blocks_problem(p) : codes_problem(p, indices, kPairCases);
    case Format::kFourOfEight: return codes_problem(p, indices, kFourCases);
    case Format::kBitmask: return bitmask_problem(p);
    default: return csr_problem(p);
  }
}

void expand(const Packed& p, int64_t first, int64_t last, float* out) {
  const int64_t columns = p.columns, end = last < p.rows ? last : p.rows;
  std::memset(out, 0, size_t(last - first) * size_t(columns) * sizeof(float));
  auto put = [&](int64_t row, int64_t column, float value) {
    if (row < end && column < columns)
      out[(row - first) * columns + column] = value * (p.group ? scale_of(p, row, column / p.group) : 1.0f);
  };
  const int64_t steps = p.padded_columns() / kStep;
  if (p.in_blocks()) {
    const bool nibbles = p.values_kind == Values::kInt4;
    const int64_t chunks = p.padded_columns() / kBlockColumns;
    for (int64_t strip = first / kBlockStrip; strip * kBlockStrip < last; ++strip)
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int block = 0; block < 4; ++block)
          for (int slot = 0; slot < 32; ++slot) {
            const int64_t base = strip * chunks + chunk;
            const uint8_t byte = p.values.data[nibbles ? 64 * base + 32 * (block / 2) + slot : 128 * base + 32 * block + slot];
            const float value = nibbles ? float((byte >> (block % 2 ? 4 : 0) & 15) - 8) : float(int8_t(byte));
            const int position = p.indices.data[32 * base + slot] >> (2 * block) & 3;
            put(strip * kBlockStrip + slot / 8, chunk * kBlockColumns + block * 16 + slot % 8 / 2 * 4 + position, value);
          }
  } else if (p.format == Format::kTwoOfFour) {
    for (int64_t strip = first / kStrip; strip * kStrip < last; ++strip)
      for (int64_t step = 0; step < steps; ++step)
        for (int pair = 0; pair < 4; ++pair)
          for (int slot = 0; slot < 8; ++slot) {
            int row, column;
            const int64_t at = strip * steps + step;
            place_of(p, at, pair, slot, row, column);
            put(strip * kStrip + row, step * kStep + column, value_at(p, (at * 4 + pair) * 8 + slot));
          }
  } else if (p.in_masks()) {
    for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
      int64_t number = first_of(p, strip, steps);
      for (int64_t step = 0; step < steps; ++step)
        for (int row = 0; row < kMaskStrip; ++row) {
          const unsigned mask = mask_of(p, p.indices.data[(strip * steps + step) * kMaskStrip + row]);
          for (int column = 0; column < 8; ++column)
            if (mask >> column & 1) put(strip * kMaskStrip + row, step * kStep + column, value_at(p, number++));
        }
    }
  } else {
    for (int64_t row = first; row < end; ++row)
      for (uint32_t number = start_at(p, row); number < start_at(p, row + 1); ++number) {
        uint16_t column;
        std::memcpy(&column, p.indices.data + 2 * size_t(number), 2);
        put(row, column, value_at(p, number));
      }
  }
}

}  // namespace si
