"""The screens as of a past moment, from the record that the engine keeps."""
