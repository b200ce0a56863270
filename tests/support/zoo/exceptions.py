"""Classes of which more than routers, adapters and convolutions stays dense in blocks, and why."""

#: Without a list of blocks that hold linear layers.
REFUSED = {"SqueezeBertForMaskedLM", "IBertModel", "PoolFormerModel"}
#: Layers that stay dense since nothing is sent through them, and why.
NOT_REACHED = {
    **dict.fromkeys(
        ("MambaForCausalLM", "FalconMambaForCausalLM", "JambaForCausalLM"), "dt_proj is read past the layer"
    ),
    **dict.fromkeys(("WavLMForSequenceClassification", "WavLMModel-stable"), "attention reads its weights itself"),
    "BridgeTowerModel": "attention of the vision tower reads its weights itself",
    "BlipModel": "no image is given to the cross attention of the text tower",
    "JetMoeForCausalLM": "its experts take sorted tokens alone, so those without any stay dense",
}
#: Whose blocks hold weights of more than one axis that no linear layer reads, and what these are.
OF_NO_KIND = {
    **dict.fromkeys(("MambaForCausalLM", "FalconMambaForCausalLM", "JambaForCausalLM"), "state matrices"),
    "ZambaForCausalLM": "state matrices, and projections of each head of Mamba in one tensor",
    "RecurrentGemmaForCausalLM": "gates of each head of the recurrence in one tensor",
    "RwkvForCausalLM": "mixing factors of channels",
    "XLNetLMHeadModel": "projections [d, heads, d of a head], read by einsum",
    **dict.fromkeys(("FunnelForMaskedLM", "FunnelBaseModel"), "projections of relative positions, read by einsum"),
    "InklingForCausalLM": "projections of relative positions",
    "LongcatFlashForCausalLM": "weights of experts that give their input back, which nothing reads",
    "BridgeTowerModel": "queries, keys and values of torch's own attention",
    **dict.fromkeys(
        ("BeitForImageClassification", "SamModel", "SwinForImageClassification", "ClapModel"), "tables of positions"
    ),
    **dict.fromkeys(("ParakeetForCTC", "Wav2Vec2ConformerForCTC"), "biases of positions"),
    **dict.fromkeys(("WavLMForSequenceClassification", "WavLMModel-stable", "Swinv2Model"), "a factor for each head"),
    "ConvNextV2Model": "factors of channels",
    **dict.fromkeys(("CvtForImageClassification", "GroupViTModel"), "learned tokens"),
}
