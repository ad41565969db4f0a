"""CLIP features of a pool's samples, computed: images, captions and their similarity.

``recipe`` says what features depend on, ``origin`` brings samples from wherever they lie,
``embed`` drives the model over them, ``journal`` keeps what is done of a part that is not, and
``store`` puts whole parts where ``pools.features`` finds them. ``merging`` makes vision
transformers cheaper, ``drift`` measures what that costs.
"""
