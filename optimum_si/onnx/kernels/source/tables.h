// Byte shuffles by index byte, for kernels of any instruction set.
#pragma once
#include <cstdint>

namespace si {

struct Shuffles {
  alignas(64) uint8_t pick[256][16];    // 4 positions of 2 bits: which 4 of 4 floats
  alignas(64) uint8_t halves[256][16];  // mask of 8 columns: where each one's 16-bit value is among those that follow
  alignas(64) uint8_t bytes[256][8];    // the same of 8-bit values
  alignas(64) uint8_t floats[16][16];   // the same of floats, for 4 columns
  alignas(64) uint8_t columns[256][8];  // columns that a mask keeps, and zeros
};

// A byte of a shuffle that gives zero.
constexpr uint8_t kNothing = 0x80;

constexpr Shuffles make_shuffles() {
  Shuffles made{};
  for (int bits = 0; bits < 256; ++bits) {
    for (int byte = 0; byte < 16; ++byte) made.pick[bits][byte] = uint8_t((bits >> (byte / 4 * 2) & 3) * 4 + byte % 4);
    int before = 0;
    for (int column = 0; column < 8; ++column) {
      const bool kept = bits >> column & 1;
      made.bytes[bits][column] = kept ? uint8_t(before) : kNothing;
      for (int byte = 0; byte < 2; ++byte)
        made.halves[bits][2 * column + byte] = kept ? uint8_t(2 * before + byte) : kNothing;
      if (bits < 16 && column < 4)
        for (int byte = 0; byte < 4; ++byte)
          made.floats[bits][4 * column + byte] = kept ? uint8_t(4 * before + byte) : kNothing;
      if (kept) made.columns[bits][before++] = uint8_t(column);
    }
  }
  return made;
}

inline constexpr Shuffles kShuffles = make_shuffles();

}  // namespace si
