// Sparse times many rows of x, which lie side by side: each kept weight is multiplied by a column of a tile of x, so that
// zeros save multiplications here as well. Included by a file for each instruction set, which gives `Lanes`, a register
// of floats, and the types of values with `eight`.
#pragma once

constexpr int64_t kMostPanels = 8;   // registers of rows of x that are summed up together
constexpr int64_t kBlockFloats = 4096;  // of a tile of x that stay in the first cache
constexpr int64_t kLongest = 512;    // kept weights of a row that are decoded at once

// Kept weights of a row, scaled, and their columns, 8 more of which may be read but are not used.
struct Kept {
  int64_t count;
  alignas(64) float values[kLongest + 8];
  alignas(64) uint16_t columns[kLongest + 8];
};

// sums += values * the tile's columns, for `kPanels` registers of rows of x.
template <class Lanes, int kPanels>
void add(const Kept& kept, const float* tile, float* sums) {
  constexpr int kWidth = kPanels * Lanes::kCount;
  constexpr int kChains = kPanels >= 5 ? 1 : kPanels >= 3 ? 2 : 4;  // sums that do not wait for each other
  typename Lanes::Register all[kChains][kPanels];
  SI_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    all[0][panel] = Lanes::load(sums + panel * Lanes::kCount);
    SI_UNROLL
    for (int chain = 1; chain < kChains; ++chain) all[chain][panel] = Lanes::zero();
  }
  // Columns are read before their turn, because loads whose address waits for another load fill the queue of Zen 1.
  constexpr int kAhead = kChains > 2 ? kChains : 2;
  const float* next[kAhead];
  SI_UNROLL
  for (int ahead = 0; ahead < kAhead; ++ahead) next[ahead] = tile + size_t(kept.columns[ahead]) * kWidth;
  int64_t at = 0;
  for (; at + kAhead <= kept.count; at += kAhead)
    SI_UNROLL
    for (int ahead = 0; ahead < kAhead; ++ahead) {
      const float* column = next[ahead];
      next[ahead] = tile + size_t(kept.columns[at + kAhead + ahead]) * kWidth;
      const auto weight = Lanes::all(kept.values[at + ahead]);
      SI_UNROLL
      for (int panel = 0; panel < kPanels; ++panel) {
        auto& sum = all[ahead % kChains][panel];
        sum = Lanes::multiply_add(weight, Lanes::load(column + panel * Lanes::kCount), sum);
      }
    }
  for (; at < kept.count; ++at) {
    const float* column = tile + size_t(kept.columns[at]) * kWidth;
    const auto weight = Lanes::all(kept.values[at]);
    SI_UNROLL
    for (int panel = 0; panel < kPanels; ++panel)
      all[0][panel] = Lanes::multiply_add(weight, Lanes::load(column + panel * Lanes::kCount), all[0][panel]);
  }
  SI_UNROLL
  for (int panel = 0; panel < kPanels; ++panel) {
    auto sum = all[0][panel];
    SI_UNROLL
    for (int chain = 1; chain < kChains; ++chain) sum = Lanes::add(sum, all[chain][panel]);
    Lanes::store(sums + panel * Lanes::kCount, sum);
  }
}

template <class Lanes>
void add(const Kept& kept, const float* tile, float* sums, int64_t panels) {
  switch (panels) {
    case 1: return add<Lanes, 1>(kept, tile, sums);
    case 2: return add<Lanes, 2>(kept, tile, sums);
    case 3: return add<Lanes, 3>(kept, tile, sums);
    case 4: return add<Lanes, 4>(kept, tile, sums);
    case 5: return add<Lanes, 5>(kept, tile, sums);
    case 6: return add<Lanes, 6>(kept, tile, sums);
    case 7: return add<Lanes, 7>(kept, tile, sums);
    default: return add<Lanes, 8>(kept, tile, sums);
  }
}

// Appends the values from `number` on that stand in the columns of a mask; returns how many.
template <class Value>
SI_INLINE int append(Kept& kept, const uint8_t* data, int64_t number, unsigned mask, int64_t column, __m256 scale) {
  const int count = __builtin_popcount(mask);
  const __m128i columns = _mm_cvtepu8_epi16(load8(kShuffles.columns[mask]));
  _mm256_storeu_ps(kept.values + kept.count, Value::scaled(Value::eight(data, number), scale));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(kept.columns + kept.count),
                   _mm_add_epi16(columns, _mm_set1_epi16(int16_t(column))));
  kept.count += count;
  return count;
}

// Strips of masks, in turn for blocks of columns.
template <class Value>
struct MaskStrips {
  static constexpr int64_t kRows = kMaskStrip;
  const Packed& p;
  const Scales scales;
  const int64_t steps, shared;           // steps of all columns, and those that share scales
  std::unique_ptr<int64_t[]> numbers;    // next value of each strip
  const int64_t first;

  MaskStrips(const Packed& packed, int64_t first_strip, int64_t count)
      : p(packed), scales(p), steps(p.padded_columns() / kStep),
        shared(p.group && p.group < p.columns ? p.group / kStep : steps), numbers(new int64_t[size_t(count)]),
        first(first_strip) {
    for (int64_t strip = 0; strip < count; ++strip) numbers[strip] = first_of(p, first + strip, steps);
  }
  void decode(int64_t strip, int64_t start, int64_t stop, Kept* kept) {
    const uint8_t* masks = p.indices.data + (first + strip) * kRows * steps;
    int64_t number = numbers[strip];
    for (int64_t step = start, until; step < stop;) {
      const int64_t group = step / shared;
      until = (group + 1) * shared < stop ? (group + 1) * shared : stop;
      alignas(16) float four[kRows];
      _mm_store_ps(four, scales.four(first + strip, group));
      for (; step < until; ++step)
        for (int row = 0; row < kRows; ++row)
          number += append<Value>(kept[row], p.values.data, number, mask_of(p, masks[step * kRows + row]),
                                  (step - start) * kStep, _mm256_set1_ps(four[row]));
    }
    numbers[strip] = number;
  }
};

// Strips of 2:4 in floating point.
template <class Value>
struct PairStrips {
  static constexpr int64_t kRows = kStrip;
  const Packed& p;
  const int64_t steps, first;

  PairStrips(const Packed& packed, int64_t first_strip, int64_t)
      : p(packed), steps(p.padded_columns() / kStep), first(first_strip) {}
  void decode(int64_t strip, int64_t start, int64_t stop, Kept* kept) {
    for (int64_t step = start; step < stop; ++step) {
      const int64_t at = (first + strip) * steps + step;
      const uint8_t* codes = p.indices.data + 8 * at;
      const int64_t column = 0x0001000100010001 * ((step - start) * kStep);
      for (int pair = 0; pair < 4; ++pair) {
        const __m256 slots = Value::eight(p.values.data, 32 * at + 8 * pair);
        const __m256d rows = _mm256_permute4x64_pd(_mm256_castps_pd(slots), 0xd8);  // (group, row) -> (row, group)
        // Columns of both groups: first the first row's two of each, then the second row's.
        uint64_t low, high;
        std::memcpy(&low, kShuffles.pair_columns[codes[2 * pair] / 2], 8);
        std::memcpy(&high, kShuffles.pair_columns[codes[2 * pair + 1] / 2], 8);
        const uint64_t columns[2] = {(low & 0xffffffff) | high << 32, low >> 32 | (high >> 32 << 32)};
        const __m128d values[2] = {_mm256_castpd256_pd128(rows), _mm256_extractf128_pd(rows, 1)};
        for (int half = 0; half < 2; ++half) {
          Kept& row = kept[2 * pair + half];
          _mm_storeu_pd(reinterpret_cast<double*>(row.values + row.count), values[half]);
          const uint64_t found = columns[half] + uint64_t(column) + 0x0004000400000000;
          std::memcpy(row.columns + row.count, &found, 8);
          row.count += 4;
        }
      }
    }
  }
};

// One tile of x, blocks of columns that stay in the cache one after the other.
template <class Lanes, class Strips>
void blocks_of(const Packed& p, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  constexpr int64_t kRows = Strips::kRows;
  const int64_t steps = p.padded_columns() / kStep, count = (last - first + kRows - 1) / kRows;
  int64_t together = kBlockFloats / width / kStep;
  together = together < 1 ? 1 : together > kLongest / kStep ? kLongest / kStep : together;
  Strips strips(p, first / kRows, count);
  Kept kept[kRows];
  for (int64_t start = 0; start < steps; start += together) {
    const int64_t stop = start + together < steps ? start + together : steps;
    for (int64_t strip = 0; strip < count; ++strip) {
      for (auto& each : kept) each.count = 0;
      strips.decode(strip, start, stop, kept);
      for (int row = 0; row < kRows; ++row)
        add<Lanes>(kept[row], tile + start * kStep * width, sums + (strip * kRows + row) * width, width / Lanes::kCount);
    }
  }
}

// 4:8 and a narrow tile: each mask's 4 values at once, without lists, for the 4 rows of a strip side by side.
template <class Lanes, class Value, int kPanels>
void narrow_fours(const Packed& p, int64_t first, int64_t last, const float* tile, float* sums) {
  constexpr int kWidth = kPanels * Lanes::kCount;
  constexpr int64_t kTogether = 16;  // steps whose values are decoded before they are used
  const int64_t steps = p.padded_columns() / kStep;
  const int64_t shared = p.group && p.group < p.columns ? p.group / kStep : steps;
  const Scales scales(p);
  for (int64_t strip = first / kMaskStrip; strip * kMaskStrip < last; ++strip) {
    typename Lanes::Register all[kMaskStrip][kPanels];
    SI_UNROLL
    for (auto& row : all)
      SI_UNROLL
      for (auto& sum : row) sum = Lanes::zero();
    for (int64_t start = 0; start < steps; start += kTogether) {
      const int64_t stop = start + kTogether < steps ? start + kTogether : steps;
      alignas(64) float values[kTogether * 16];
      for (int64_t step = start, until; step < stop;) {
        const int64_t group = step / shared;
        until = (group + 1) * shared < stop ? (group + 1) * shared : stop;
        const __m128 four = scales.four(strip, group);
        const __m256 one = _mm256_set_m128(_mm_permute_ps(four, 0x55), _mm_permute_ps(four, 0x00));
        const __m256 other = _mm256_set_m128(_mm_permute_ps(four, 0xff), _mm_permute_ps(four, 0xaa));
        for (; step < until; ++step) {
          const int64_t number = (strip * steps + step) * 16;
          float* out = values + (step - start) * 16;
          _mm256_store_ps(out, Value::scaled(Value::eight(p.values.data, number), one));
          _mm256_store_ps(out + 8, Value::scaled(Value::eight(p.values.data, number + 8), other));
        }
      }
      const uint8_t* codes = p.indices.data + (strip * steps + start) * kMaskStrip;
      const float *columns = tile + start * kStep * kWidth, *value = values;
      for (int64_t step = start; step < stop; ++step, columns += kStep * kWidth)
        SI_UNROLL
        for (int row = 0; row < kMaskStrip; ++row) {
          uint32_t places;
          std::memcpy(&places, kShuffles.four_columns[0] + 2 * size_t(*codes++), 4);
          SI_UNROLL
          for (int number = 0; number < 4; ++number) {
            const float* column = columns + size_t(places >> 8 * number & 0xff) / 4 * kWidth;
            const auto weight = Lanes::all(*value++);
            SI_UNROLL
            for (int panel = 0; panel < kPanels; ++panel)
              all[row][panel] = Lanes::multiply_add(weight, Lanes::load(column + panel * Lanes::kCount), all[row][panel]);
          }
        }
    }
    SI_UNROLL
    for (int row = 0; row < kMaskStrip; ++row)
      SI_UNROLL
      for (int panel = 0; panel < kPanels; ++panel)
        Lanes::store(sums + (strip * kMaskStrip - first + row) * kWidth + panel * Lanes::kCount, all[row][panel]);
  }
}

template <class Lanes, class Value>
void csr_tile(const Packed& p, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  const Scales scales(p);
  const bool grouped = p.group && p.group < p.columns;
  std::unique_ptr<float[]> units(new float[size_t(p.columns / kUnit + 1)]);  // scales, whatever the group
  Kept kept;
  for (int64_t row = first; row < last; ++row) {
    const int64_t stop = start_at(p, row + 1);
    const __m256 scale = _mm256_set1_ps(grouped ? 1.0f : scales.one(row, 0));
    if (grouped)
      for (int64_t unit = 0, group = 0, left = p.group; unit * kUnit < p.columns; ++unit, left -= kUnit) {
        if (!left) ++group, left = p.group;
        units[unit] = scales.one(row, group);
      }
    for (int64_t at = start_at(p, row); at < stop; at += kLongest) {
      kept.count = stop - at < kLongest ? stop - at : kLongest;
      std::memcpy(kept.columns, p.indices.data + 2 * at, size_t(2 * kept.count));
      for (int64_t number = 0; number < kept.count; number += 8)
        _mm256_store_ps(kept.values + number, _mm256_mul_ps(Value::eight(p.values.data, at + number), scale));
      if (grouped)
        for (int64_t number = 0; number < kept.count; ++number)
          kept.values[number] *= units[kept.columns[number] / kUnit];
      add<Lanes>(kept, tile, sums + (row - first) * width, width / Lanes::kCount);
    }
  }
}

template <class Lanes, class Value>
void tile_of(const Packed& p, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  if (p.format == Format::kCsr) return csr_tile<Lanes, Value>(p, first, last, tile, width, sums);
  if (p.format == Format::kTwoOfFour) return blocks_of<Lanes, PairStrips<Value>>(p, first, last, tile, width, sums);
  if (p.format == Format::kFourOfEight) switch (width / Lanes::kCount) {
    case 1: return narrow_fours<Lanes, Value, 1>(p, first, last, tile, sums);
    case 2: return narrow_fours<Lanes, Value, 2>(p, first, last, tile, sums);
    case 3: return narrow_fours<Lanes, Value, 3>(p, first, last, tile, sums);
    default: break;
  }
  blocks_of<Lanes, MaskStrips<Value>>(p, first, last, tile, width, sums);
}

template <class Lanes, class Value>
void many_rows(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t columns = p.padded_columns(), rows = last - first;
  const Lines sums(rows * task.turned.tile);
  for (int64_t m = 0; m < task.count; m += task.turned.tile) {
    const int64_t left = task.count - m, lanes = task.turned.lanes;
    const int64_t width = left < task.turned.tile ? (left + lanes - 1) / lanes * lanes : task.turned.tile;
    const float* tile = task.turned.data + m * columns;
    std::memset(sums.get(), 0, size_t(rows * width) * sizeof(float));
    tile_of<Lanes, Value>(p, first, last, tile, width, sums.get());
    for (int64_t at = 0; at < width && at < left; ++at)
      for (int64_t row = 0; row < rows; ++row) put(task, m + at, first + row, sums.get()[row * width + at]);
  }
}

template <class Lanes>
void many_of_kind(const Task& task, int64_t first, int64_t last) {
  switch (task.packed->values_kind) {
    case Values::kFp32: return many_rows<Lanes, Fp32>(task, first, last);
    case Values::kFp16: return many_rows<Lanes, Fp16>(task, first, last);
    case Values::kInt8: return many_rows<Lanes, Int8>(task, first, last);
    default: return many_rows<Lanes, Int4>(task, first, last);
  }
}
