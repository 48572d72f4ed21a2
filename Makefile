TARGETS = install demo serve test check coverage bench live oracle sdk-newest lock soak

.PHONY: $(TARGETS)
$(TARGETS):
	@scripts/$@ $(ARGS)
