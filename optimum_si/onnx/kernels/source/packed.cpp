#include "packed.h"

#include <cstring>

namespace si {
namespace {

int64_t up(int64_t count, int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

bool is_nm(const Packed& p) { return p.format == Format::kTwoOfFour || p.format == Format::kFourOfEight; }

bool in_nibble_blocks(const Packed& p) { return p.format == Format::kTwoOfFour && p.values_kind == Values::kInt4; }

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

float scale_at(const Packed& p, int64_t row, int64_t column) {
  if (!p.group) return 1.0f;
  const int64_t groups = p.groups(), number = column / p.group;
  if (in_nibble_blocks(p))
    return half_at(p.scales.data, ((row / kInt4Strip) * groups + number) * kInt4Strip + row % kInt4Strip);
  if (p.values_kind == Values::kInt4) return half_at(p.scales.data, row * groups + number);
  float scale;
  std::memcpy(&scale, p.scales.data + 4 * (row * groups + number), 4);
  return scale;
}

// Where slot `slot` of pair `pair` stands: its row in the strip and its column in the step.
void place_of(const Packed& p, int64_t step, int64_t slot_pair, int slot, int& row, int& column) {
  if (p.format == Format::kTwoOfFour) {
    uint16_t bits;
    std::memcpy(&bits, p.indices.data + 2 * (step * 4 + slot_pair), 2);
    row = int(2 * slot_pair) + (slot >> 1 & 1);
    column = (slot >> 2) * 4 + (bits >> (2 * slot) & 3);
  } else {
    const uint8_t* at = p.indices.data + 3 * (step * 4 + slot_pair);
    const uint32_t bits = at[0] | uint32_t(at[1]) << 8 | uint32_t(at[2]) << 16;
    row = int(2 * slot_pair) + (slot >> 2);
    column = int(bits >> (3 * slot) & 7);
  }
}

const char* nm_problem(const Packed& p) {
  const int64_t strips = p.padded_rows() / kStrip, steps = p.padded_columns() / kStep;
  for (int64_t step = 0; step < strips * steps; ++step) {
    for (int pair = 0; pair < 4; ++pair) {
      int before_row = -1, before_column = -1, before_group = -1;
      for (int slot = 0; slot < 8; ++slot) {
        int row, column;
        place_of(p, step, pair, slot, row, column);
        const int group = p.format == Format::kTwoOfFour ? column / 4 : 0;
        if (row == before_row && group == before_group && column <= before_column)
          return "positions in a group are not ascending: the pattern does not hold";
        before_row = row, before_column = column, before_group = group;
      }
    }
  }
  return nullptr;
}

const char* nibble_problem(const Packed& p) {
  const int64_t chunks = p.padded_rows() / kInt4Strip * (p.padded_columns() / kInt4Columns);
  for (int64_t chunk = 0; chunk < chunks; ++chunk)
    for (int slot = 0; slot < 32; slot += 2)
      for (int block = 0; block < 4; ++block) {
        const uint8_t* at = p.indices.data + 32 * chunk + slot;
        if ((at[0] >> (2 * block) & 3) >= (at[1] >> (2 * block) & 3))
          return "positions in a group are not ascending: the pattern does not hold";
      }
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
    uint32_t count = 0;
    for (int64_t step = 0; step < steps; ++step)
      for (int row = 0; row < kMaskStrip; ++row) {
        const uint8_t mask = p.indices.data[(strip * steps + step) * 4 + row];
        if (mask && strip * kMaskStrip + row >= p.rows) return "a mask has bits in rows that the weight lacks";
        if (step == steps - 1 && (mask & ~tail)) return "a mask has bits in columns that the weight lacks";
        count += uint32_t(__builtin_popcount(mask));
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
  return up(columns, in_nibble_blocks(*this) ? kInt4Columns : kStep);
}

int64_t strip_of(const Packed& p) {
  if (p.format == Format::kCsr) return 1;
  return p.format == Format::kBitmask || in_nibble_blocks(p) ? kMaskStrip : kStrip;
}

const char* problem(const Packed& p) {
  if (p.rows < 1 || p.columns < 1) return "rows and columns must be positive";
  if (p.rows > (int64_t(1) << 31) || p.columns > (int64_t(1) << 31)) return "the shape is too large";
  const bool whole = p.values_kind == Values::kFp32 || p.values_kind == Values::kFp16;
  if (whole != (p.group == 0)) return whole ? "values in floating point take no scales" : "integer values need scales";
  if (p.group < 0 || (p.group && p.group < p.columns && p.group % kStep)) return "group is not a multiple of 8";
  if (in_nibble_blocks(p) && p.group != 32) return "2:4 in 4 bits has groups of 32";
  if (p.group) {
    const int64_t rows = in_nibble_blocks(p) ? p.padded_rows() : p.rows;
    const size_t size = size_t(rows * p.groups()) * (p.values_kind == Values::kInt4 ? 2 : 4);
    if (p.scales.size != size) return "scales have another size than the shape needs";
  } else if (p.scales.size) {
    return "values in floating point take no scales";
  }
  const int64_t rows = p.padded_rows(), columns = p.padded_columns();
  int64_t values, indices;
  if (is_nm(p)) {
    if (p.starts.size) return "N:M weights have no starts";
    values = rows * columns / 2;
    indices = p.format == Format::kTwoOfFour ? values / 4 : values / 8 * 3;
  } else {
    const int64_t count = p.format == Format::kCsr ? p.rows : rows / kMaskStrip;
    if (p.format == Format::kCsr && columns > 65536) return "16-bit column indices reach 65536 columns";
    if (const char* wrong = starts_problem(p, count)) return wrong;
    values = start_at(p, count);
    indices = p.format == Format::kCsr ? 2 * values : rows * (columns / kStep);
  }
  if (p.values.size != bytes_of(p.values_kind, values) + kSlack) return "values have another size than the shape needs";
  if (p.indices.size != size_t(indices) + kSlack) return "indices have another size than the shape needs";
  if (in_nibble_blocks(p)) return nibble_problem(p);
  if (is_nm(p)) return nm_problem(p);
  return p.format == Format::kCsr ? csr_problem(p) : bitmask_problem(p);
}

void expand(const Packed& p, int64_t first, int64_t last, float* out) {
  const int64_t columns = p.columns, end = last < p.rows ? last : p.rows;
  std::memset(out, 0, size_t(last - first) * size_t(columns) * sizeof(float));
  auto put = [&](int64_t row, int64_t column, float value) {
    if (row < end && column < columns) out[(row - first) * columns + column] = value * scale_at(p, row, column);
  };
  if (in_nibble_blocks(p)) {
    const int64_t chunks = p.padded_columns() / kInt4Columns;
    for (int64_t strip = first / kInt4Strip; strip * kInt4Strip < last; ++strip)
      for (int64_t chunk = 0; chunk < chunks; ++chunk)
        for (int block = 0; block < 4; ++block)
          for (int slot = 0; slot < 32; ++slot) {
            const int64_t base = strip * chunks + chunk;
            const uint8_t pair = p.values.data[64 * base + 32 * (block / 2) + slot];
            const int position = p.indices.data[32 * base + slot] >> (2 * block) & 3;
            const int64_t column = chunk * kInt4Columns + block * 16 + slot % 8 / 2 * 4 + position;
            put(strip * kInt4Strip + slot / 8, column, float((pair >> (block % 2 ? 4 : 0) & 15) - 8));
          }
  } else if (is_nm(p)) {
    const int64_t steps = p.padded_columns() / kStep;
    for (int64_t strip = first / kStrip; strip * kStrip < last; ++strip)
      for (int64_t step = 0; step < steps; ++step)
        for (int pair = 0; pair < 4; ++pair)
          for (int slot = 0; slot < 8; ++slot) {
            int row, column;
            const int64_t at = strip * steps + step;
            place_of(p, at, pair, slot, row, column);
            put(strip * kStrip + row, step * kStep + column, value_at(p, (at * 4 + pair) * 8 + slot));
          }
  } else if (p.format == Format::kBitmask) {
    const int64_t steps = p.padded_columns() / kStep;
    for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
      int64_t number = start_at(p, strip);
      for (int64_t step = 0; step < steps; ++step)
        for (int row = 0; row < kMaskStrip; ++row) {
          const uint8_t mask = p.indices.data[(strip * steps + step) * 4 + row];
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
