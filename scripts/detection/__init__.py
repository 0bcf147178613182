"""One tomogram from file to files: plan, networks, labels, in memory or streamed; batches that go on."""
