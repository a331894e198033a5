"""Synthetic streets: seeded driving clips with exact masks, optical flow and occlusion."""

from vss_ros.core.synthetic.clip import STREET_CLASSES, StreetClip, StreetFrame

__all__ = ['STREET_CLASSES', 'StreetClip', 'StreetFrame']
