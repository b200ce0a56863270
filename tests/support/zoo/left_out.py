"""Classes that were tried and are not in the zoo, each with what stands in the way (transformers 5.24)."""

LEFT_OUT = {
    "DinatModel": "needs natten",
    "Gemma3nForConditionalGeneration": "needs timm for its vision tower; Gemma3nForCausalLM is here",
    "LayoutLMv2Model": "needs detectron2",
    "Llama4ForConditionalGeneration": "every forward ends in an AttributeError: it asks the output of its language "
    "model for `image_outputs`; Llama4ForCausalLM and Llama4VisionModel are here",
    "TimmWrapperModel": "needs timm",
}
