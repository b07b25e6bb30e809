"""Evolution problems on masked images, in two or three dimensions."""
