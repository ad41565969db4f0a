"""Which sample is it? The uid of a sample of a tar, found the same way wherever tars are read."""

from __future__ import annotations

from . import tar
from .images import MAX_BYTES
from .sources.base import caption_of_sample, image_member, values_of_sample
from .uids import is_uid, uid_of_bytes


def uid_of_sample(window: tar.Window, sample: tar.TarSample) -> str:
    """Return a sample's uid: from its json, else computed from image and caption.

    Raises ValueError with a reason code for a sample that cannot be used.
    """
    image = image_member(sample)
    if image is None:
        raise ValueError("no_image")
    if image.size > MAX_BYTES:
        raise ValueError("image_unsafe")
    values = values_of_sample(window, sample)
    uid = values.get("uid")
    if isinstance(uid, str) and is_uid(uid):
        return uid
    caption = caption_of_sample(window, sample, values)
    if caption is None:
        raise ValueError("no_caption")
    return uid_of_bytes(window(image.data, image.size), caption.encode())
