"""Readers of public forms of annotated images, one a file; each yields :class:`~zoo.data.annotations.base.AnnotatedImage`."""
