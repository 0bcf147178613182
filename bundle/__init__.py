"""The release kit: build, verify and adopt zips in the format of MONAI's model zoo."""
