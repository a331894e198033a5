"""Synthetic streets: seeded driving clips with exact masks, optical flow and occlusion."""

from vss_ros.core.synthetic.clip import StreetClip, StreetFrame

__all__ = ['StreetClip', 'StreetFrame']
