"""Speech whose text is known: sentences that eSpeak NG reads aloud, in several voices, speeds and pitches.

Needs the package ``espeakng-loader``, which holds eSpeak's library and its voices.
"""

import ctypes
from collections.abc import Sequence

import numpy as np


#: Samples a second that Whisper hears.
RATE = 16_000
VOICES = ("en-us", "en-gb", "en-gb-x-rp", "en-gb-scotland")
_SPEEDS, _PITCHES = (140, 155, 170), (35, 50, 65)
#: eSpeak's numbers: samples are handed back, text is UTF-8, and parameters.
_RETRIEVAL, _UTF8, _RATE, _PITCH = 1, 1, 1, 3


class Speaker:
    """eSpeak, which a process can start once."""

    def __init__(self) -> None:
        import espeakng_loader

        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._given = self._library.espeak_Initialize(_RETRIEVAL, 0, espeakng_loader.get_data_path().encode(), 0)
        self._parts: list[np.ndarray] = []

        @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
        def receive(samples, count, events):
            if samples and count:
                self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        self._receive = receive  # which the library calls as long as it runs
        self._library.espeak_SetSynthCallback(receive)

    def speak(self, sentences: Sequence[str]) -> list[np.ndarray]:
        """Samples of each sentence, fp32 [T] at :data:`RATE`; the voice changes from one to the next."""
        sounds = []
        for index, sentence in enumerate(sentences):
            self._library.espeak_SetVoiceByName(VOICES[index % len(VOICES)].encode())
            self._library.espeak_SetParameter(_RATE, _SPEEDS[index % len(_SPEEDS)], 0)
            self._library.espeak_SetParameter(_PITCH, _PITCHES[index // len(_SPEEDS) % len(_PITCHES)], 0)
            self._parts.clear()
            text = sentence.encode() + b"\0"
            self._library.espeak_Synth(text, ctypes.c_size_t(len(text)), 0, 1, 0, _UTF8, None, None)
            self._library.espeak_Synchronize()
            sounds.append(_at_rate(np.concatenate(self._parts).astype(np.float32) / 32768, self._given))
        return sounds


def _at_rate(samples: np.ndarray, given: int) -> np.ndarray:
    from scipy.signal import resample_poly

    divisor = int(np.gcd(RATE, given))
    return resample_poly(samples, RATE // divisor, given // divisor).astype(np.float32)
