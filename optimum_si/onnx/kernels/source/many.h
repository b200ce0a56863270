// Sparse times many rows of x, which lie side by side: each kept weight is multiplied by a column of a tile of x, so that
// zeros save multiplications here as well. Included by a file for each instruction set, which gives `Lanes`, a register
// of floats, and the types of values with `eight`.
#pragma once

constexpr int64_t kMostPanels = 8;   // registers of rows of x that are summed up together
constexpr int64_t kBlockFloats = 4096;  // of a tile of x that stay in the first cache
constexpr int64_t kLongest = 512;    // kept weights of a row that are decoded at once

// Kept weights of a row, scaled, and their columns.
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
  int64_t at = 0;
  for (; at + kChains <= kept.count; at += kChains)
    SI_UNROLL
    for (int chain = 0; chain < kChains; ++chain) {
      const float* column = tile + size_t(kept.columns[at + chain]) * kWidth;
      const auto weight = Lanes::all(kept.values[at + chain]);
      SI_UNROLL
      for (int panel = 0; panel < kPanels; ++panel)
        all[chain][panel] = Lanes::multiply_add(weight, Lanes::load(column + panel * Lanes::kCount), all[chain][panel]);
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
int append(Kept& kept, const Packed& p, int64_t number, unsigned mask, int64_t column, float scale) {
  const int count = __builtin_popcount(mask);
  const __m256 values = _mm256_mul_ps(Value::eight(p.values.data, number), _mm256_set1_ps(scale));
  const __m128i columns = _mm_cvtepu8_epi16(load8(kShuffles.columns[mask]));
  _mm256_storeu_ps(kept.values + kept.count, values);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(kept.columns + kept.count),
                   _mm_add_epi16(columns, _mm_set1_epi16(int16_t(column))));
  kept.count += count;
  return count;
}

// One tile of x, blocks of columns that stay in the cache one after the other.
template <class Lanes, class Value>
void mask_tile(const Task& task, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  const Packed& p = *task.packed;
  const int64_t steps = p.padded_columns() / kStep, panels = width / Lanes::kCount;
  int64_t together = kBlockFloats / width / kStep;
  together = together < 1 ? 1 : together > kLongest / kStep ? kLongest / kStep : together;
  const int64_t strips = (last - first + kMaskStrip - 1) / kMaskStrip;
  std::unique_ptr<int64_t[]> numbers(new int64_t[size_t(strips)]);
  for (int64_t strip = 0; strip < strips; ++strip) numbers[strip] = first_of(p, first / kMaskStrip + strip, steps);
  Kept kept[kMaskStrip];
  for (int64_t start = 0; start < steps; start += together) {
    const int64_t stop = start + together < steps ? start + together : steps;
    for (int64_t strip = 0; strip < strips; ++strip) {
      const int64_t row = first + strip * kMaskStrip;
      const uint8_t* masks = p.indices.data + row * steps;
      int64_t number = numbers[strip];
      for (auto& each : kept) each.count = 0;
      for (int64_t step = start; step < stop; ++step)
        for (int place = 0; place < kMaskStrip; ++place) {
          const float scale = p.group ? padded_scale(p, row + place, step * kStep / p.group) : 1.0f;
          const unsigned mask = masks[step * kMaskStrip + place];
          number += append<Value>(kept[place], p, number, mask, (step - start) * kStep, scale);
        }
      numbers[strip] = number;
      for (int place = 0; place < kMaskStrip; ++place)
        add<Lanes>(kept[place], tile + start * kStep * width, sums + (strip * kMaskStrip + place) * width, panels);
    }
  }
}

template <class Lanes, class Value>
void csr_tile(const Task& task, int64_t first, int64_t last, const float* tile, int64_t width, float* sums) {
  const Packed& p = *task.packed;
  Kept kept;
  for (int64_t row = first; row < last; ++row) {
    const int64_t stop = start_at(p, row + 1);
    for (int64_t at = start_at(p, row); at < stop; at += kLongest) {
      kept.count = stop - at < kLongest ? stop - at : kLongest;
      std::memcpy(kept.columns, p.indices.data + 2 * at, size_t(2 * kept.count));
      for (int64_t number = 0; number < kept.count; number += 8)
        _mm256_store_ps(kept.values + number, Value::eight(p.values.data, at + number));
      if (p.group)
        for (int64_t number = 0; number < kept.count; ++number)
          kept.values[number] *= scale_of(p, row, kept.columns[number] / p.group);
      add<Lanes>(kept, tile, sums + (row - first) * width, width / Lanes::kCount);
    }
  }
}

template <class Lanes, class Value>
void many_rows(const Task& task, int64_t first, int64_t last) {
  const Packed& p = *task.packed;
  const int64_t columns = p.padded_columns(), rows = last - first;
  std::unique_ptr<float[]> sums(new float[size_t(rows * task.turned.tile)]);
  for (int64_t m = 0; m < task.count; m += task.turned.tile) {
    const int64_t left = task.count - m, lanes = task.turned.lanes;
    const int64_t width = left < task.turned.tile ? (left + lanes - 1) / lanes * lanes : task.turned.tile;
    const float* tile = task.turned.data + m * columns;
    std::memset(sums.get(), 0, size_t(rows * width) * sizeof(float));
    if (p.in_masks()) {
      mask_tile<Lanes, Value>(task, first, last, tile, width, sums.get());
    } else {
      csr_tile<Lanes, Value>(task, first, last, tile, width, sums.get());
    }
    for (int64_t at = 0; at < width && at < left; ++at)
      for (int64_t row = 0; row < rows; ++row) put(task, m + at, first + row, sums[row * width + at]);
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
