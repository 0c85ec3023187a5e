"""Rearrangements, up and down, of pictures and of more dimensions."""

from tests.cases import Case, ModuleCase

CASES = [
    Case("pixel_shuffle", lambda F, x: F.pixel_shuffle(x, 2), ((2, 8, 3, 2),)),
    Case("pixel_shuffle more dimensions", lambda F, x: F.pixel_shuffle(x, 3), ((2, 1, 9, 2, 1),)),
    Case("pixel_shuffle one", lambda F, x: F.pixel_shuffle(x, 1), ((4, 3, 2),)),
    Case("pixel_unshuffle", lambda F, x: F.pixel_unshuffle(x, 2), ((2, 3, 4, 6),)),
    Case("pixel_unshuffle more dimensions", lambda F, x: F.pixel_unshuffle(x, 3), ((2, 1, 2, 6, 3),)),
    Case("channel_shuffle", lambda F, x: F.channel_shuffle(x, 2), ((2, 6, 3, 2),)),
    Case("channel_shuffle one dimension", lambda F, x: F.channel_shuffle(x, 3), ((2, 6, 3),)),
]

MODULE_CASES = [
    ModuleCase("PixelShuffle", lambda nn: nn.PixelShuffle(2), ((2, 8, 3, 2),)),
    ModuleCase("PixelUnshuffle", lambda nn: nn.PixelUnshuffle(2), ((2, 3, 4, 6),)),
    ModuleCase("ChannelShuffle", lambda nn: nn.ChannelShuffle(2), ((2, 6, 3, 2),)),
]
