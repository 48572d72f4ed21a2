TARGETS = install demo serve test check bench live oracle sdk-newest lock

.PHONY: $(TARGETS)
$(TARGETS):
	@scripts/$@ $(ARGS)
