// Byte shuffles by index byte, for kernels of any instruction set.
#pragma once
#include <cstdint>

namespace si {

// Patterns have few cases: 36 of two groups in 2:4, 70 of a group in 4:8. Their codes are twice the case's number, so
// that a shuffle of 16 bytes lies at code times 8, which an address can say.
constexpr int kPairCases = 36, kFourCases = 70;

struct Shuffles {
  alignas(64) uint8_t pick[kPairCases][16];  // which of 4 floats two rows keep
  // Which floats a group of 4:8 keeps of the first 4 columns, and of the other 4.
  alignas(64) uint8_t low_pick[kFourCases][16], high_pick[kFourCases][16];
  alignas(64) uint8_t halves[256][16];  // mask of 8 columns: where each one's 16-bit value is among those that follow
  alignas(64) uint8_t bytes[256][8];    // the same of 8-bit values
  alignas(64) uint8_t floats[16][16];   // the same of floats, for 4 columns
  alignas(64) uint8_t columns[256][8];  // columns that a mask keeps, and zeros
  uint8_t positions[kPairCases];        // of a case of 2:4: 2 bits for each of 4 slots
  uint16_t pair_columns[kPairCases][4]; // the same as numbers
  uint8_t four_columns[kFourCases][4];  // 4 times the columns that a group of 4:8 keeps
  uint8_t masks[2 * kFourCases];        // of a code of 4:8: its mask
};

// A byte of a shuffle that gives zero.
constexpr uint8_t kNothing = 0x80;

static constexpr Shuffles make_shuffles() {
  Shuffles made{};
  int four = 0;
  for (int bits = 0; bits < 256; ++bits) {
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
    if (before != 4) continue;
    for (int byte = 0; byte < 16; ++byte) {
      const int column = made.columns[bits][byte / 4];
      made.low_pick[four][byte] = column < 4 ? uint8_t(4 * column + byte % 4) : kNothing;
      made.high_pick[four][byte] = column < 4 ? kNothing : uint8_t(4 * column - 16 + byte % 4);
    }
    for (int number = 0; number < 4; ++number)
      made.four_columns[four][number] = uint8_t(4 * made.columns[bits][number]);
    made.masks[2 * four++] = uint8_t(bits);
  }
  constexpr uint8_t two_of_four[6] = {0 | 1 << 2, 0 | 2 << 2, 0 | 3 << 2, 1 | 2 << 2, 1 | 3 << 2, 2 | 3 << 2};
  for (int number = 0; number < kPairCases; ++number) {
    made.positions[number] = uint8_t(two_of_four[number % 6] | two_of_four[number / 6] << 4);
    for (int slot = 0; slot < 4; ++slot)
      made.pair_columns[number][slot] = uint16_t(made.positions[number] >> (2 * slot) & 3);
    for (int byte = 0; byte < 16; ++byte)
      made.pick[number][byte] = uint8_t((made.positions[number] >> (byte / 4 * 2) & 3) * 4 + byte % 4);
  }
  return made;
}

constexpr Shuffles kShuffles = make_shuffles();

}  // namespace si
