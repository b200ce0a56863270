"""The processor that lies beside a model: what makes its inputs of images and sounds."""

from pathlib import Path
from typing import Any

from transformers import AutoFeatureExtractor, AutoImageProcessor, AutoProcessor, PreTrainedTokenizerBase

from optimum_si.errors import CheckpointError, reason_of

from .locate import find_file, place_of
from .side_files import check_sizes


#: Files of which a place with a processor has one.
FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")


def load_processor(given: Any, source: str | Path, **kwargs: Any) -> Any:
    """The processor of a model.

    Args:
        given: a processor, or where to load one; None tries the model's own place.
        source: where the model came from; "" for nowhere.
        kwargs: of ``from_pretrained`` of the model; code that comes with a processor is never run.

    Returns:
        A processor, an image processor or a feature extractor; None where the model's place has none.

    Raises:
        CheckpointError: where there is one, or was asked for, that cannot be loaded.
    """
    if given is not None and not isinstance(given, (str, Path)):
        return given
    place = {} if given is not None and str(given) != str(source) else place_of(kwargs)
    source = source if given is None else given
    if not str(source) or not any(find_file(source, name, **place) for name in FILES):
        if given is None:
            return None
        raise CheckpointError(f"no processor can be loaded from {str(source)!r}: it has none of {', '.join(FILES)}.")
    check_sizes(source, place.get("subfolder"))
    reasons = []
    for kind in (AutoProcessor, AutoImageProcessor, AutoFeatureExtractor):
        try:
            processor = kind.from_pretrained(str(source), trust_remote_code=False, **place)
        except Exception as error:  # whatever files, packages and configs raise
            reasons.append(reason_of(error))
            if isinstance(error, ImportError):  # its parts alone would not do what it does
                break
            continue
        if not isinstance(processor, PreTrainedTokenizerBase):
            return processor
    raise CheckpointError(
        f"the processor in {str(source)!r} cannot be loaded: {' '.join(dict.fromkeys(reasons))} Give one that is "
        "loaded (SIPruner(model, processor=...)), or tensors instead of images and sounds."
    )
