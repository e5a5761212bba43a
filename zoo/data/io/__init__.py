"""Images, masks and records as files: DICOM, NIfTI, PNG, run lengths, JSON lines."""
