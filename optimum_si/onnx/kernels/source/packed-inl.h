// How parts of a packed weight are read, on any machine.
#pragma once
#include <cstring>

#include "packed.h"
#include "tables.h"
#include "target.h"

namespace si::SI_TARGET {
namespace {

// First value of a strip or row.
inline uint32_t start_at(const Packed& packed, int64_t index) {
  uint32_t start;
  std::memcpy(&start, packed.starts.data + 4 * index, 4);
  return start;
}

// First value of a strip of masks.
inline int64_t first_value(const Packed& packed, int64_t strip, int64_t steps) {
  return packed.format == Format::kBitmask ? int64_t(start_at(packed, strip)) : strip * steps * 4 * kMaskStrip;
}

// Mask of an index byte of 4:8 or a bitmask.
inline unsigned mask_of(const Packed& packed, uint8_t index) {
  return packed.format == Format::kBitmask ? index : kShuffles.masks[index];
}

// Column of a value of CSR.
inline uint16_t column_at(const Packed& packed, int64_t index) {
  uint16_t column;
  std::memcpy(&column, packed.indices.data + 2 * index, 2);
  return column;
}

}  // namespace
}  // namespace si::SI_TARGET
