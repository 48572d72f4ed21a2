TARGETS = install demo serve test check coverage simulate bench live oracle sdk-newest lock

.PHONY: $(TARGETS)
$(TARGETS):
	@scripts/$@ $(ARGS)
