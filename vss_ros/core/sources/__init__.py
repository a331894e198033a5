"""Sources give frames: image folders, videos, bags, synthetic streets, topics."""
