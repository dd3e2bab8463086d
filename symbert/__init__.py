"""The symbert model."""
